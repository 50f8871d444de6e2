"""Attention, cross-attention and MLP outputs kept apart, in every family of the host."""

from collections.abc import Callable, Iterator

import pytest
import torch

from cached_runs import reusing, run
from comfyui_omnicache.nodes import messages
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.families import BRANCH_KINDS, family_of, modules_of, places_of
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from tiny_models import MODELS, build, sample

BRANCH = "branch"
every_family = pytest.mark.parametrize("family", list(MODELS))

# Between their blocks, these families change the stream in ways that depend on it (skips through a linear
# layer, face and audio adapters), so that the sum of all branches is not what the stack adds.
NOT_ONLY_BRANCHES = ("hunyuan-dit", "hunyuan3d-2.1", "wan-animate", "wan-s2v")


def layers_of(model, kind: str) -> Iterator[torch.nn.Module]:
    """The layers without children in the modules that end, or feed, the branches of one kind."""
    diffusion_model = model.model.diffusion_model
    lists = {place.blocks for place in places_of(diffusion_model, family_of(diffusion_model))}
    for blocks in lists:
        names = [n for b in blocks.branches if kind in b.kinds for n in (*b.outputs, *b.feeds)]
        for name, module in diffusion_model.named_modules():
            inside = name.removeprefix(f"{blocks.attribute}.").partition(".")[2]
            if name.startswith(f"{blocks.attribute}.") and not list(module.children()):
                if any(inside == own or inside.startswith(f"{own}.") for own in names):
                    yield module


class Counter:
    """Calls of the layers of each kind of branch, and of the host's attention functions."""

    def __init__(self, model) -> None:
        self.calls = dict.fromkeys((*BRANCH_KINDS, "function", "function inside"), 0)
        self.is_inside = False
        for kind in BRANCH_KINDS:
            for layer in layers_of(model, kind):
                layer.forward = self._counting(kind, layer.forward)
        diffusion_model = model.model.diffusion_model
        for blocks in family_of(diffusion_model).lists:
            for _, block in modules_of(diffusion_model, blocks.attribute):
                block.register_forward_pre_hook(lambda *_: setattr(self, "is_inside", True))
                block.register_forward_hook(lambda *_: setattr(self, "is_inside", False))
        options = model.model_options["transformer_options"]
        # A plain function: the host copies a bound method together with its object when it clones the model.
        options["optimized_attention_override"] = lambda *args, **kwargs: self._attention(*args, **kwargs)

    def _counting(self, kind: str, forward: Callable) -> Callable:
        """Not a hook: hooks also run where the pack answers in the place of forward."""

        def counted(*args, **kwargs):
            self.calls[kind] += 1
            return forward(*args, **kwargs)

        return counted

    def _attention(self, function, *args, **kwargs):
        self.calls["function"] += 1
        self.calls["function inside"] += self.is_inside
        return function(*args, **kwargs)

    def take(self) -> dict[str, int]:
        taken, self.calls = self.calls, dict.fromkeys(self.calls, 0)
        return taken


@every_family
def test_every_block_of_the_family_has_an_attention_and_an_mlp_branch(family):
    model = build(family)
    assert any(layers_of(model, "attention")) and any(layers_of(model, "mlp"))


@every_family
def test_a_patch_that_reuses_nothing_changes_no_bit(family):
    model = build(family)
    assert torch.equal(sample(reusing(model, 0.0, BRANCH), family), sample(model, family))


@every_family
def test_at_a_reused_step_no_branch_is_computed(family):
    model = build(family)
    counter = Counter(model)
    sample(model, family)
    whole = counter.take()
    sample(reusing(model, 0.5, BRANCH, mode="off"), family)
    half = counter.take()
    assert whole["attention"] > 0 and whole["mlp"] > 0
    assert {kind: calls * 2 for kind, calls in half.items() if "function" not in kind} == {
        kind: calls for kind, calls in whole.items() if "function" not in kind
    }
    # Text refiners in front of the blocks go on computing theirs.
    assert half["function inside"] * 2 == whole["function inside"]


@every_family
def test_reuse_changes_the_result_and_leaves_the_model_as_it_was(family):
    model = build(family)
    before = sample(model, family)
    reused = sample(reusing(model, 0.5, BRANCH), family)
    assert torch.isfinite(reused).all() and not torch.equal(reused, before)
    assert torch.equal(sample(model, family), before)


@pytest.mark.parametrize("family", [name for name in MODELS if name not in NOT_ONLY_BRANCHES])
def test_with_frozen_gates_branches_and_the_stack_agree_to_rounding(family):
    model = build(family)
    # The model is told the same time at each step, so its gates never change.
    model.model.model_sampling.timestep = lambda sigma: torch.full_like(sigma, 500.0)
    # Not by a forecast, which keeps changes in half the width.
    stack, branches = (
        sample(reusing(model, 0.5, each, mode="age-aware"), family) for each in ("stack", "branch")
    )
    assert (branches - stack).norm() <= 1e-5 * stack.norm()


@pytest.mark.parametrize("family", ["sd3", "flux", "wan", "lumina2"])
def test_gates_are_refreshed_at_reused_steps(family):
    model = build(family)
    stack, branches = (sample(reusing(model, 0.5, each), family) for each in ("stack", "branch"))
    assert not torch.allclose(branches, stack, rtol=1e-4)


@pytest.mark.parametrize(
    "parts, halved",
    [("attention", {"attention"}), ("cross-attention, mlp", {"cross_attention", "mlp"})],
)
def test_a_plan_may_name_branches(parts, halved):
    model = build("wan")
    counter = Counter(model)
    sample(model, "wan")
    whole = counter.take()
    sample(reusing(model, 0.5, BRANCH, parts, mode="off"), "wan")
    calls = counter.take()
    assert {kind for kind in BRANCH_KINDS if calls[kind] * 2 == whole[kind]} == halved
    assert {kind for kind in BRANCH_KINDS if calls[kind] == whole[kind]} == set(BRANCH_KINDS) - halved


def test_a_plan_may_name_blocks():
    model = build("sd3")
    calls = [0, 0, 0]
    for number, block in enumerate(model.model.diffusion_model.joint_blocks):

        def count(*_, number=number):
            calls[number] += 1

        block.x_block.mlp.fc1.register_forward_hook(count)
    sample(reusing(model, 0.5, BRANCH, "mlp 1-2", mode="off"), "sd3")
    assert calls == [12, 6, 6]


@pytest.mark.parametrize("granularity", ["stack", "branch"])
@pytest.mark.parametrize("family", ["sd3", "flux", "wan", "mochi"])
def test_a_forecast_computes_no_branch_and_changes_what_is_reused(family, granularity):
    model = build(family)
    plain = sample(reusing(model, 0.5, granularity, mode="off"), family)
    counter = Counter(model)
    forecast = sample(reusing(model, 0.5, granularity, mode="forecast"), family)
    calls = counter.take()
    sample(model, family)
    whole = counter.take()
    assert torch.isfinite(forecast).all() and not torch.equal(forecast, plain)
    assert [calls[kind] * 2 for kind in BRANCH_KINDS] == [whole[kind] for kind in BRANCH_KINDS]


def test_parts_need_the_granularity_of_branches():
    with pytest.raises(ValueError, match="granularity: 'stack' .* Set granularity to 'branch'"):
        reusing(build("sd3"), 0.5, "stack", parts="mlp")


@pytest.mark.parametrize(
    "family", ["sd3", "flux", "wan", "qwen-image", "mochi", "stable-audio", "latte", "open-sora"]
)
@pytest.mark.parametrize("granularity", ["stack", "branch"])
@pytest.mark.parametrize("mode", ["off", "forecast"])
def test_the_memory_told_at_the_first_step_is_what_is_kept(family, mode, granularity, monkeypatch):
    told, reports = [], []
    monkeypatch.setattr(messages, "tell_size", told.append)
    monkeypatch.setattr(messages, "announce", reports.append)
    sample(reusing(build(family), 0.5, granularity, mode=mode), family)
    (size,) = told
    # Two rows: with and without the prompt.
    assert size * 2 == pytest.approx(reports[0].cache_bytes, rel=0.15)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_and_so_it_is_in_other_number_formats(dtype, reports, monkeypatch):
    told = []
    monkeypatch.setattr(messages, "tell_size", told.append)
    schedule = Schedule(Budget("reuse ratio", 0.5), cost="even")
    patch = OmniCacheModelPatch.execute(build("flux"), schedule, None, "stack", dtype).args[0]
    run(patch, "flux", latent=torch.full((1, 16, 32, 32), 0.1))
    assert told[0] * 2 == pytest.approx(reports[0].cache_bytes, rel=0.1)


@pytest.mark.parametrize("mode", ["age-aware", "forecast"])
@pytest.mark.parametrize("granularity", ["stack", "branch"])
def test_rows_evaluated_together_or_apart_give_the_same(mode, granularity):
    model = reusing(build("sd3"), 0.5, granularity, mode=mode)
    together = sample(model, "sd3", batch=2)
    model.model.memory_required = lambda *args, **kwargs: 1e30  # the host then evaluates row by row
    apart = sample(model, "sd3", batch=2)
    assert (apart - together).norm() <= 1e-3 * together.norm()


def test_only_attention_inside_the_reused_block_is_skipped():
    """The text refiner in front of the blocks computes its own at each step."""
    model = build("hunyuan-video")
    counter = Counter(model)
    sample(model, "hunyuan-video")
    whole = counter.take()["function"]
    sample(reusing(model, 0.5, BRANCH, "attention 3, mlp 3", mode="off"), "hunyuan-video")
    assert whole - counter.take()["function"] == 6  # the last of four blocks, at six of twelve steps
