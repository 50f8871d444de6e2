"""The rivals on real model classes."""

from collections.abc import Callable

import comfy.samplers
import numpy as np
import pytest
import torch

from cached_runs import row_by_row
from comfyui_omnicache.nodes import messages
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.rival_schedule import RivalSchedule
from comfyui_omnicache.nodes.trajectory_calibrator import TrajectoryCalibrator
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.families import family_of, modules_of, places_of
from comfyui_omnicache.omnicache.rivals import RIVALS, GivenSchedule
from tiny_models import MODELS, build, conditioning, sample

PLANNED = [name for name, rival in RIVALS.items() if not rival.decides_while_sampling]
ITSELF = (1.0, 0.0)  # TeaCache's polynomial p(x) = x


@pytest.fixture
def reports(monkeypatch):
    announced = []
    monkeypatch.setattr(messages, "announce", announced.append)
    return announced


@pytest.fixture(scope="module", params=["sd3", "wan"])
def measured(request):
    family, model = request.param, build(request.param)
    empty = {"samples": torch.zeros(1, *MODELS[family].shape)}
    with torch.inference_mode():
        profile = TrajectoryCalibrator.execute(
            model, conditioning(family, 1), conditioning(family, 2), empty, 1, 12, 3.0, "euler", "simple",
            1.0, 1, "",
        ).args[0]  # fmt: skip
    return family, model, profile


def schedule(method, profile=None, knob=-1.0, full_steps=0):
    return RivalSchedule.execute("none", method, knob, full_steps, profile).args[0]


def patched(model, given, correction=None):
    granularity = "branch" if given.rival.needs_branches else "stack"
    return OmniCacheModelPatch.execute(model, given, correction, granularity).args[0]


def reused(report) -> list[int]:
    return [step for step, kind in sorted(report.step_kinds.items()) if kind == "reuse"]


@pytest.mark.parametrize("method", PLANNED)
def test_each_rival_runs_as_planned_and_leaves_the_model_as_it_was(measured, method, reports):
    family, model, profile = measured
    before = sample(model, family)
    out = sample(patched(model, schedule(method, profile)), family)
    assert torch.isfinite(out).all() and not torch.equal(out, before)
    assert reports[0].notes == {}  # nothing that was to be reused had to run in full
    assert 12 - len(reused(reports[0])) == reports[0].planned_full < 12
    assert torch.equal(sample(model, family), before)


def test_fora_reuses_every_branch_as_a_given_plan_of_all_blocks_would(measured):
    """At 12 steps its steps 0, 2, 5, 8 and 11 are full: step 1 is reused, which a solved plan never does."""
    family, model, _ = measured
    plan = schedule("fora").plan_for(np.linspace(1, 0, 13))
    assert [step for step, reused in enumerate(plan.reused) if not reused] == [0, 2, 5, 8, 11]


def test_a_rival_that_needs_branches_says_so():
    with pytest.raises(ValueError, match="'stack' .* fora keeps branches apart. Set granularity to 'branch'"):
        OmniCacheModelPatch.execute(build("sd3"), schedule("fora"), granularity="stack")


class ByHand:
    """A model whose branches answer with what they last computed, wherever a rule says so: without the pack.

    rule: (step, block, kind of branch) -> whether it is reused. at_entry: called with the step and with what
    comes into the first block's attention, of the first of the two rows; at_middle: with what the middle
    block's attention gives.
    """

    def __init__(self, family: str, rule: Callable[[int, int, str], bool], at_entry=None, at_middle=None):
        self.model, self.step, self.rule = build(family), -1, rule
        diffusion_model = self.model.model.diffusion_model
        diffusion_model.register_forward_pre_hook(lambda *_: setattr(self, "step", self.step + 1))
        blocks = places_of(diffusion_model, family_of(diffusion_model))[0].blocks
        for position, (_, block) in enumerate(modules_of(diffusion_model, blocks.attribute)):
            modules = dict(block.named_modules())
            for branch in blocks.branches:
                for name in filter(modules.__contains__, branch.outputs):
                    self._replace(modules[name], position, branch.kinds[0])
            attention = blocks.branches[0]
            if position == 0 and at_entry is not None:
                entry = modules[(attention.feeds or attention.outputs)[0]]
                self._before(entry, lambda first: at_entry(self.step, first[:1]))
            if position == 1 and at_middle is not None:  # of three blocks
                self._after(modules[attention.outputs[0]], lambda out: at_middle(self.step, out[:1]))

    def _replace(self, module, position: int, kind: str) -> None:
        forward, kept = module.forward, []

        def answer(*args, **kwargs):
            if not self.rule(self.step, position, kind):
                kept[:] = [forward(*args, **kwargs)]
            return kept[0]

        module.forward = answer

    def _before(self, module, see: Callable) -> None:
        forward = module.forward

        def seen(first, *args, **kwargs):
            see(first)
            return forward(first, *args, **kwargs)

        module.forward = seen

    def _after(self, module, see: Callable) -> None:
        forward = module.forward

        def seen(*args, **kwargs):
            out = forward(*args, **kwargs)
            see(out)
            return out

        module.forward = seen


def assert_same(out: torch.Tensor, by_hand: torch.Tensor, uncached: torch.Tensor) -> None:
    assert (out - by_hand).norm() <= 1e-5 * by_hand.norm()
    assert (out - uncached).norm() > 1e-3 * by_hand.norm()


@pytest.mark.parametrize("family", ["sd3", "wan"])
@pytest.mark.parametrize("interval", [2, 3])
def test_pab_reuses_the_newest_of_each_branch(family, interval, reports):
    """Also of those computed at a step that reused others. At 24 steps, attention of all blocks and the first
    block's MLP are of different ages."""
    model = build(family)
    sampling = model.get_model_object("model_sampling")
    times = 1000 * comfy.samplers.calculate_sigmas(sampling, "simple", 24)[:-1]
    window = [step for step, time in enumerate(times) if 100 < time < 800]
    computed = [window[(number + 1) * len(window) // 6] for number in range(5)]
    after = {step + age for step in computed for age in (1, 2)} - set(computed)
    intervals = {"attention": interval, "cross_attention": interval + 4}

    def rule(step: int, block: int, kind: str) -> bool:
        if kind == "mlp":
            return block == 0 and step in after
        return step in window and step % intervals[kind] != 0

    out = sample(patched(model, schedule("pab", knob=interval)), family, steps=24)
    by_hand = sample(ByHand(family, rule).model, family, steps=24)
    assert_same(out, by_hand, sample(model, family, steps=24))
    kinds = [kind for kind in ("attention", "cross_attention") if family == "wan" or kind == "attention"]
    assert reused(reports[0]) == [
        step for step in range(24) if step in after or any(rule(step, 0, kind) for kind in kinds)
    ]
    assert reports[0].notes == {}


def test_pab_takes_no_correction_that_counts_from_one_step():
    model = patched(build("sd3"), schedule("pab"), Correction("forecast"))
    with pytest.raises(ValueError, match="correction: mode 'forecast' .* Set mode to 'off'"):
        sample(model, "sd3")


@pytest.mark.parametrize("family", ["sd3", "wan"])
def test_teacache_decides_by_the_first_blocks_modulated_input(family, reports):
    total, previous, is_reuse, delta = 0.0, None, False, 1.2

    def at_entry(step: int, signal: torch.Tensor) -> None:
        nonlocal total, previous, is_reuse
        if previous is not None:
            total += float((signal - previous).abs().mean() / previous.abs().mean())
        is_reuse = 0 < step < 15 and total < delta
        total = total if is_reuse else 0.0
        previous = signal.clone()

    by_hand = ByHand(family, lambda step, block, kind: is_reuse, at_entry)
    expected = sample(by_hand.model, family, steps=16)
    model = build(family)
    given = GivenSchedule("teacache", knob=delta, polynomial=ITSELF)
    out = sample(patched(model, given), family, steps=16)
    assert_same(out, expected, sample(model, family, steps=16))
    assert 3 < len(reused(reports[0])) < 14  # neither all that may be reused nor few
    assert reports[0].planned_full is None and reports[0].notes == {}


@pytest.mark.parametrize("family", ["sd3", "wan"])
@pytest.mark.parametrize("method", ["adacache", "adacache-moreg"])
def test_adacache_decides_by_the_middle_blocks_attention(family, method, reports):
    """At 30 steps, for which its book was published; the latent of the tiny video has three frames. With
    random weights much changes from step to step, and frames differ little."""
    previous, rate, next_full, is_reuse, motion_before = None, 1, 0, False, 1.0
    factor, typical = {"sd3": 2.2, "wan": 1.5}[family], 0.001
    has_motion = method == "adacache-moreg" and family == "wan"

    def at_entry(step: int, signal: torch.Tensor) -> None:
        nonlocal is_reuse
        is_reuse = 2 <= step < 28 and step < next_full

    def at_middle(step: int, output: torch.Tensor) -> None:
        nonlocal previous, rate, next_full, motion_before
        if is_reuse:
            return
        if previous is not None:
            change = float((output - previous).abs().sum() / previous.abs().sum()) / rate
            if has_motion:
                first, middle, last = output.chunk(3, dim=1)
                before, after = torch.cat((first, middle)), torch.cat((middle, last))
                motion = float((after - before).abs().sum() / (after.abs().sum() + before.abs().sum()))
                motion = (motion / typical) ** 8 if 2 <= step <= 26 else 1.0
                change *= motion + abs(10 * (motion - motion_before) / rate)
                motion_before = motion
            rate = 6 - sum(change >= factor * bound for bound in (0.08, 0.16, 0.24, 0.32, 0.40))
        previous, next_full = output.clone(), step + rate

    by_hand = ByHand(family, lambda step, block, kind: is_reuse, at_entry, at_middle)
    expected = sample(by_hand.model, family, steps=30)
    model = build(family)
    out = sample(patched(model, GivenSchedule(method, factor, typical_motion=typical)), family, steps=30)
    assert_same(out, expected, sample(model, family, steps=30))
    assert 3 < len(reused(reports[0])) < 22  # of the 22 that the longest rate would reuse
    assert reports[0].planned_full is None and reports[0].notes == {}


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("method", ["teacache", "adacache-moreg"])
def test_every_family_shows_a_pilot_what_it_asks_for(family, method, reports):
    """A threshold that nothing reaches: only what is always full is computed."""
    model = build(family)
    out = sample(patched(model, GivenSchedule(method, knob=100.0, polynomial=ITSELF)), family)
    assert torch.isfinite(out).all() and reports[0].notes == {}
    assert reused(reports[0]) == list(range(1, 11)) if method == "teacache" else [2, 4, 6, 8]


@pytest.mark.parametrize("family", ["sd3", "wan"])
def test_a_pilot_has_nothing_computed_twice(family):
    model = build(family)
    diffusion_model, calls = model.model.diffusion_model, [0]

    def count(*_) -> None:
        calls[0] += 1

    for layer in diffusion_model.modules():
        if layer is getattr(diffusion_model, "joint_blocks", [None])[0]:
            layer.x_block.mlp.fc1.register_forward_hook(count)
        elif layer is getattr(diffusion_model, "blocks", [None])[0]:
            layer.ffn[0].register_forward_hook(count)
    sample(patched(model, GivenSchedule("teacache", knob=100.0, polynomial=ITSELF)), family)
    assert calls[0] == 2  # the first step and the last


@pytest.mark.parametrize("method", ["teacache", "adacache"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_all_calls_of_a_step_follow_the_first(method, sampler, reports):
    """Rows evaluated apart, and samplers that evaluate twice."""
    knob = {"teacache": 1.2, "adacache": 4.0}[method]
    model = patched(build("sd3"), GivenSchedule(method, knob, polynomial=ITSELF))
    together = sample(model, "sd3", sampler=sampler, batch=2)
    with row_by_row(model):
        apart = sample(model, "sd3", sampler=sampler, batch=2)
    assert (apart - together).norm() <= 1e-3 * together.norm()
    assert reused(reports[0]) == reused(reports[1]) != []
    assert reports[0].evaluations_reused == reports[1].evaluations_reused


@pytest.mark.parametrize("mode", ["age-aware", "forecast"])
def test_a_correction_may_be_connected_to_a_pilot(mode, reports):
    given = GivenSchedule("teacache", knob=1.2, polynomial=ITSELF)
    plain, corrected = (
        sample(patched(build("sd3"), given, correction), "sd3", steps=16)
        for correction in (None, Correction(mode))
    )
    assert torch.isfinite(corrected).all() and not torch.equal(corrected, plain)
    assert len(reused(reports[1])) > 3


def test_each_run_has_its_own_pilot(reports):
    model = patched(build("sd3"), GivenSchedule("teacache", knob=1.2, polynomial=ITSELF))
    assert torch.equal(sample(model, "sd3"), sample(model, "sd3"))
