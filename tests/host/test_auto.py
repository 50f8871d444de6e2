"""OmniCache Auto: cached from the first run on, and the same picture each time."""

import comfy.model_management
import pytest
import torch

from comfyui_omnicache.nodes import auto, messages
from comfyui_omnicache.nodes.auto import BUDGETS, OmniCacheAuto
from comfyui_omnicache.nodes.host import run_log_of
from comfyui_omnicache.omnicache.schedule import TYPICAL_REUSE_COST
from tiny_models import build, count_leaf_calls, raising_at, sample

FAITHFUL = "faithful (about 1.9x)"


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What was said on the node and in the log, but for the reports of the runs."""
    said: list[str] = []
    monkeypatch.setattr(messages, "announce", lambda report: None)
    monkeypatch.setattr(messages.log, "log", lambda level, text, *args: said.append(text % args))
    return said


def automatic(model, budget: str = FAITHFUL):
    return OmniCacheAuto.execute(model, budget).args[0]


def test_the_budgets_promise_what_their_share_of_reused_steps_gives():
    for words, ratio in BUDGETS.items():
        promised = float(words.split("about ")[1].removesuffix("x)"))
        gives = 1 / (1 - ratio * (1 - TYPICAL_REUSE_COST))
        assert promised <= gives < promised + 0.1


@pytest.mark.parametrize("budget", BUDGETS)
def test_each_budget_has_a_plan_for_any_number_of_steps(budget):
    for steps in range(8, 101):
        sigmas = torch.linspace(1, 0, steps + 1).tolist()
        plan = auto._plan(sigmas, BUDGETS[budget], "flow")
        assert plan.full >= 5 and sum(plan.reused) <= round(BUDGETS[budget] * steps)


@pytest.mark.parametrize("family", ["sd3", "wan", "flux", "pixart"])
def test_it_reuses_from_the_first_run_on_and_repeats(family, lines, reports):
    model = build(family)
    patch, plain = automatic(model), sample(model, family, steps=12)
    first, second = (sample(patch, family, steps=12) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, plain)
    assert torch.equal(sample(model, family, steps=12), plain)
    assert [line for line in lines if "computes" in line] == [
        "OmniCache: computes 6 of 12 steps, about 1.9x faster"
    ] * 2
    assert [(run.evaluations_full, run.evaluations_asked) for run in reports] == [(12, 24)] * 2


@pytest.mark.parametrize(("steps", "computed"), [(8, 5), (10, 5), (12, 6), (20, 10)])
def test_a_short_run_computes_five_steps_at_least(reports, steps, computed):
    sample(automatic(build("sd3")), "sd3", steps=steps)
    assert list(reports[-1].step_kinds.values()).count("full") == computed


def test_at_reused_steps_the_model_is_not_called():
    model = build("sd3")
    calls = count_leaf_calls(model, "sd3")
    sample(model, "sd3", steps=12)
    plain = calls[0]
    sample(automatic(model), "sd3", steps=12)
    assert calls[0] - plain == plain / 2


def test_a_model_of_no_known_family_is_cached_too(lines, reports):
    model = build("sd3")

    class Unheard(type(model.model.diffusion_model)): ...

    model.model.diffusion_model.__class__ = Unheard
    patch, plain = automatic(model), sample(model, "sd3", steps=12)
    assert not torch.equal(sample(patch, "sd3", steps=12), plain)
    assert reports[0].evaluations_full == 12 and run_log_of(patch).runs[0].family == "Unheard"


def test_with_a_sampler_that_needs_its_blocks_it_runs_uncached_and_says_so(lines, reports):
    model = build("sd3")

    class Unheard(type(model.model.diffusion_model)): ...

    model.model.diffusion_model.__class__ = Unheard
    options = {"steps": 12, "sampler": "euler_ancestral"}
    assert torch.equal(sample(automatic(model), "sd3", **options), sample(model, "sd3", **options))
    assert len(lines) == 1 and "sampler: euler_ancestral needs the blocks" in lines[0] and reports == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 7}, "steps: 7 are too few to reuse any; at least 8 are needed"),
        ({"sampler": "dpm_fast"}, "sampler: dpm_fast chooses its own steps"),
        ({"sampler": "dpm_adaptive"}, "sampler: dpm_adaptive chooses its own steps"),
    ],
)
def test_what_cannot_be_cached_runs_as_without_the_node(options, words, lines, reports):
    model = build("sd3")
    assert torch.equal(sample(automatic(model), "sd3", **options), sample(model, "sd3", **options))
    assert reports == [] and len(lines) == 1 and words in lines[0]


def test_whatever_fails_before_a_run_the_run_goes_on(lines, monkeypatch):
    model = build("sd3")
    patch, plain = automatic(model), sample(model, "sd3")
    monkeypatch.setattr(auto, "prediction_of", lambda model: 1 / 0)
    assert torch.equal(sample(patch, "sd3"), plain)
    assert len(lines) == 1 and "not cached, this run is at full quality: division by zero" in lines[0]


def test_an_error_of_the_model_itself_is_not_hidden():
    model = build("sd3")

    def fail(*_):
        raise RuntimeError("a block failed")

    model.model.diffusion_model.joint_blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="a block failed"):
        sample(automatic(model), "sd3")


def test_an_interrupt_leaves_nothing_behind():
    model = build("sd3")
    patch, plain = automatic(model), sample(model, "sd3")

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patch, "sd3", callback=raising_at(5))
    assert torch.equal(sample(model, "sd3"), plain)


def test_it_replaces_another_patch_of_the_pack_and_is_replaced(reports):
    sample(automatic(automatic(build("sd3"), "fastest (about 3.1x)")), "sd3")
    assert len(reports) == 1 and reports[0].planned_full == 6


def test_the_node_says_it_on_itself(monkeypatch):
    from server import PromptServer

    class Client:
        client_id, last_node_id, texts = "me", "9", []

        def send_progress_text(self, text, node_id, client_id):
            self.texts.append((node_id, text))

        def send_sync(self, *_): ...

    monkeypatch.setattr(PromptServer, "instance", Client(), raising=False)
    node = OmniCacheAuto.PREPARE_CLASS_CLONE({"UNIQUE_ID": "4"})
    sample(node.execute(build("sd3"), FAITHFUL).args[0], "sd3")
    assert [node_id for node_id, _ in Client.texts] == ["4"] and "computes" in Client.texts[0][1]
