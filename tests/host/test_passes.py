"""What graphs do besides two prompts on one picture: more conditionings, more passes, parts of a run.

The oracle is in cached_runs.py: the same plan with one lane at a time.
"""

import gc
from functools import partial
from types import SimpleNamespace

import comfy.controlnet
import comfy.hooks
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.ops
import numpy as np
import pytest
import torch
from comfy_extras.nodes_cfg import CFGNorm
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    BasicScheduler,
    DualCFGGuider,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_flux import FluxGuidance
from comfy_extras.nodes_hooks import ConditioningSetDefaultAndCombine
from comfy_extras.nodes_model_advanced import ModelSamplingSD3, RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_perpneg import PerpNeg, PerpNegGuider
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

import nodes
from cached_runs import STEPS, assert_lanes_do_not_mix, assert_same_row_by_row, reusing, row_by_row, run
from comfyui_omnicache.nodes import host
from comfyui_omnicache.omnicache.branch_tap import BranchTap
from comfyui_omnicache.omnicache.lane import Lane
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.run import CacheRun
from comfyui_omnicache.omnicache.schedule import Schedule
from comfyui_omnicache.omnicache.tap import StackTap
from comfyui_omnicache.omnicache.trail import Trail
from replay_each_step import replaying_each_step
from tiny_models import CPU, MODELS, build, conditioning, raising_at


def area(cond, x: int, width: int):
    return nodes.ConditioningSetArea().append(cond, width, 64, x, 0, 1.0)[0]


def masked(cond, left: bool, bounds: str = "default"):
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1.0
    return nodes.ConditioningSetMask().append(cond, mask if left else 1 - mask, bounds, 1.0)[0]


def ranged(cond, start: float, end: float):
    return nodes.ConditioningSetTimestepRange().set_range(cond, start, end)[0]


def lora() -> dict[str, torch.Tensor]:
    weight = torch.randn(3 * 192, 4, generator=torch.Generator().manual_seed(5)) * 0.05
    key = "diffusion_model.joint_blocks.0.x_block.attn.qkv"
    return {f"{key}.lora_up.weight": weight, f"{key}.lora_down.weight": weight[:192].T.contiguous()}


def hooked(cond, strength: float, keyframes=None):
    group = comfy.hooks.create_hook_lora(lora(), strength, 0.0)
    group.set_keyframes_on_hooks(keyframes)
    return comfy.hooks.set_hooks_for_conditioning(cond, group)


class Conds:
    """More than one conditioning on a side."""

    @staticmethod
    def areas(family):
        return area(conditioning(family, 1), 0, 32) + area(conditioning(family, 4), 32, 32), None

    @staticmethod
    def masks(family):
        return masked(conditioning(family, 1), True) + masked(conditioning(family, 4), False), None

    @staticmethod
    def areas_of_both_prompts(family):
        positive = area(conditioning(family, 1), 0, 32) + area(conditioning(family, 4), 16, 48)
        return positive, area(conditioning(family, 2), 0, 48) + conditioning(family, 5)

    @staticmethod
    def areas_in_masks(family):
        return masked(area(conditioning(family, 1), 0, 48), True) + conditioning(family, 4), None

    @staticmethod
    def areas_of_masks(family):
        return masked(conditioning(family, 1), True, "mask bounds") + conditioning(family, 4), None

    @staticmethod
    def areas_by_share(family):
        share = nodes.ConditioningSetAreaPercentage().append(conditioning(family, 1), 0.5, 0.5, 0.5, 0.0, 0.8)
        return share[0] + conditioning(family, 4), masked(conditioning(family, 2), False)

    @staticmethod
    def defaults_where_no_mask_is(family):
        return ConditioningSetDefaultAndCombine().set_default_and_combine(
            masked(conditioning(family, 1), True), conditioning(family, 4)
        )[0], None

    @staticmethod
    def three_averaged(family):
        return conditioning(family, 1) + conditioning(family, 4), conditioning(family, 2)

    @staticmethod
    def hooks(family):
        return hooked(conditioning(family, 1), 1.0), conditioning(family, 2)

    @staticmethod
    def hooks_that_change_midway(family):
        frames = comfy.hooks.HookKeyframeGroup()
        for strength, start in ((1.0, 0.0), (0.2, 0.5)):
            frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
        return hooked(conditioning(family, 1), 1.0, frames), hooked(conditioning(family, 2), 0.5)


@pytest.mark.parametrize("kind", [name for name in vars(Conds) if not name.startswith("_")])
def test_conditionings(kind):
    positive, negative = getattr(Conds, kind)("sd3")
    latent = torch.full((2, 16, 8, 8), 0.1)  # a batch, so that a lane is more than a row
    assert_lanes_do_not_mix(build("sd3"), "sd3", positive, negative, latent=latent)


def changes_at(step: int):
    """Another prompt from this step on."""
    share = (step - 0.5) / STEPS
    return ranged(conditioning("sd3", 1), 0.0, share) + ranged(conditioning("sd3", 4), share, 1.0)


def reused_steps() -> list[int]:
    plan = Schedule(Budget("reuse ratio", 0.5), cost="even").plan_for(np.linspace(1.0, 0.0, STEPS + 1))
    return [step for step in range(STEPS) if plan.is_reused(step)]


def test_timestep_ranges_that_change_at_a_computed_step(reports):
    step = next(step for step in range(6, STEPS) if step not in reused_steps())
    assert_lanes_do_not_mix(build("sd3"), "sd3", changes_at(step), mode="off")
    assert not reports[0].notes and reports[0].evaluations_full == STEPS


def test_a_conditioning_that_comes_in_midway_starts_with_a_full_evaluation(reports):
    step = reused_steps()[2]
    model = build("sd3")
    run(reusing(model, mode="off"), "sd3", changes_at(step))
    run(reusing(model, mode="off"), "sd3")
    assert reports[0].notes == {"a conditioning came in without a cache": 1} and not reports[1].notes
    assert reports[0].evaluations_full == reports[1].evaluations_full + 2  # both prompts, at this step


MODEL_NODES = {
    "skip layer guidance": lambda model: SkipLayerGuidanceDiT.execute(model, 3.0, 0.0, 0.6, "1", "").args[0],
    "perturbed attention": lambda model: PerturbedAttentionGuidance.execute(model, 2.0).args[0],
    "perpendicular negative": lambda model: PerpNeg.execute(model, conditioning("sd3", 6), 1.0).args[0],
    "rescaled cfg": lambda model: RescaleCFG().patch(model, 0.7)[0],
    "normed cfg": lambda model: CFGNorm.execute(model, 1.0).args[0],
    "another shift": lambda model: ModelSamplingSD3().patch(model, 5.0)[0],
    "lora": lambda model: comfy.sd.load_lora_for_models(model, None, lora(), 0.8, 0.0)[0],
}


@pytest.mark.parametrize("node", list(MODEL_NODES))
def test_nodes_that_change_the_model_before_the_patch(node):
    assert_lanes_do_not_mix(MODEL_NODES[node](build("sd3")), "sd3")


@pytest.mark.parametrize("node", list(MODEL_NODES))
def test_their_order_does_not_matter(node):
    before = run(reusing(MODEL_NODES[node](build("sd3"))), "sd3")
    after = run(MODEL_NODES[node](reusing(build("sd3"))), "sd3")
    assert torch.equal(before, after)


def test_skip_layer_guidance_keeps_its_effect(reports):
    """Its pass runs in full, at each step at which it is made."""
    model = build("sd3")
    guided = MODEL_NODES["skip layer guidance"](model)
    assert torch.equal(run(reusing(guided, 0.0), "sd3"), run(guided, "sd3"))
    assert not torch.equal(run(reusing(guided), "sd3"), run(reusing(model), "sd3"))
    passes = sum(sigma >= 0.4 for sigma in (1 - step / STEPS for step in range(STEPS)))
    facts = reports[1].as_dict()
    assert facts["notes"] == {"another node replaced blocks in this pass, which ran in full": passes}
    assert facts["full"] == STEPS + passes  # two prompts at half of the steps, and these


def guided(make_guider, model) -> torch.Tensor:
    """A run of SamplerCustomAdvanced with a guider node."""
    sigmas = BasicScheduler.execute(model, "simple", STEPS, 1.0).args[0]
    latent = {"samples": torch.full((1, 16, 8, 8), 0.1)}
    with torch.inference_mode():
        return SamplerCustomAdvanced.execute(
            RandomNoise.execute(3).args[0], make_guider(model), KSamplerSelect.execute("euler").args[0],
            sigmas, latent,
        ).args[0]["samples"]  # fmt: skip


def perpendicular_guider(model):
    conds = [conditioning("sd3", seed) for seed in (1, 2, 6)]
    return PerpNegGuider.execute(model, *conds, 3.0, 1.0).args[0]


def dual_guider(model):
    conds = [conditioning("sd3", seed) for seed in (1, 4, 2)]
    return DualCFGGuider.execute(model, *conds, 3.0, 2.0, "regular").args[0]


@pytest.mark.parametrize("make_guider", [perpendicular_guider, dual_guider])
def test_guiders_with_three_conditionings(make_guider):
    assert_same_row_by_row(build("sd3"), partial(guided, make_guider))


def test_context_windows_keep_lanes_of_their_own():
    model = ContextWindowsManualNode.execute(
        build("wan"), 4, 2, "standard_static", 1, False, "pyramid", 2
    ).args[0]
    latent = torch.full((1, 16, 8, 6, 6), 0.1)
    patch = reusing(model)
    result = run(patch, "wan", latent=latent)
    with row_by_row(patch):
        assert (run(patch, "wan", latent=latent) - result).norm() <= 1e-3 * result.norm()
    assert not torch.equal(result, run(model, "wan", latent=latent))


@pytest.mark.parametrize("schedule", ["standard_uniform", "looped_uniform"])
def test_a_context_window_that_comes_back_brings_no_old_cache(schedule, monkeypatch):
    """Windows that move meet the caches of earlier steps again, here up to 26 steps later."""
    ages, held, reuse, finish = [], [], CacheRun._reuse, CacheRun.step_finished

    def reused(run, call, lanes):
        ages.extend(run._step - lane.step for lane in lanes)
        return reuse(run, call, lanes)

    def finished(run, step):
        report = finish(run, step)
        held.append(len(run._lanes))
        return report

    monkeypatch.setattr(CacheRun, "_reuse", reused)
    monkeypatch.setattr(CacheRun, "step_finished", finished)
    model = ContextWindowsManualNode.execute(build("wan"), 5, 2, schedule, 1, False, "pyramid", 2).args[0]
    run(reusing(model, mode="off"), "wan", steps=30, latent=torch.full((1, 16, 13, 6, 6), 0.1))
    assert max(ages, default=0) <= 2  # the plan's longest run
    assert max(held) <= 16  # two steps' windows of both prompts


@pytest.mark.parametrize("cfg, largest", [([2.0, 4.0, 3.0], 4.0), (1.5, 1.5)])
def test_guidance_that_changes_while_sampling_is_a_list(cfg, largest):
    """As guiders of other packs have it."""
    assert host._cfg_of(SimpleNamespace(cfg=cfg)) == largest
    assert host._cfg_of(SimpleNamespace()) == 1.0


def test_distilled_guidance_needs_no_negative(reports):
    """Flux: the guidance is an input of the model, and one prompt is evaluated."""
    model, results = build("flux"), []

    def basic_guider(guidance, model):
        return BasicGuider.execute(
            model, FluxGuidance.execute(conditioning("flux", 1), guidance).args[0]
        ).args[0]

    for guidance in (3.5, 1.0):
        assert_same_row_by_row(model, partial(guided, partial(basic_guider, guidance)))
        results.append(guided(partial(basic_guider, guidance), reusing(model)))
    assert not torch.equal(*results)
    positive = FluxGuidance.execute(conditioning("flux", 1), 1.0).args[0]
    assert torch.equal(run(reusing(model), "flux", positive, cfg=1.0), results[1])
    counts = {(facts["full"], facts["asked"]) for facts in (report.as_dict() for report in reports)}
    assert counts == {(6, 12)}


def vace(strength: float):
    generator = torch.Generator().manual_seed(7)
    frames = torch.randn(1, 32, 3, 6, 6, generator=generator)
    mask = torch.ones(1, 64, 3, 6, 6)
    values = {"vace_frames": [frames], "vace_mask": [mask], "vace_strength": [strength]}
    return [[text, {**more, **values}] for text, more in conditioning("wan-vace", 1)]


def test_vace_frames():
    model = build("wan-vace")
    assert_lanes_do_not_mix(model, "wan-vace", vace(1.0))
    assert not torch.equal(
        run(reusing(model), "wan-vace", vace(1.0)), run(reusing(model), "wan-vace", vace(0.3))
    )


def test_a_start_frame_in_further_channels():
    """Wan image to video: the frame and its mask are joined to the latent."""
    frames = torch.randn(1, 16, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    values = {"concat_latent_image": frames, "concat_mask": torch.ones(1, 1, 3, 6, 6)}
    positive, negative = (
        [[text, {**more, **values}] for text, more in conditioning("wan-i2v", seed)] for seed in (1, 2)
    )
    model = build("wan-i2v")
    assert not torch.equal(run(model, "wan-i2v", positive, negative), run(model, "wan-i2v"))
    assert_lanes_do_not_mix(model, "wan-i2v", positive, negative)


def test_reference_latents():
    positive = [[text, {**more, "reference_latents": [torch.full((1, 16, 8, 8), 0.2)]}]
                for text, more in conditioning("flux", 1)]  # fmt: skip
    assert_lanes_do_not_mix(build("flux"), "flux", positive)


def test_image_to_image_and_inpainting():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    assert_lanes_do_not_mix(build("sd3"), "sd3", denoise=0.7)
    assert_lanes_do_not_mix(build("sd3"), "sd3", noise_mask=mask)


def flux_controlnet():
    config = {key: value for key, value in MODELS["flux"].unet.items() if key not in ("out_channels",)}
    net = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=True, out_channels=16, operations=comfy.ops.disable_weight_init, dtype=torch.float32,
        device=CPU, **config,
    )  # fmt: skip
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.05)
    return comfy.controlnet.ControlNet(
        net, latent_format=None, load_device=CPU, extra_conds=["y", "guidance"], compression_ratio=1
    )


def controlled(control, end: float = 1.0, previous=None):
    hint = torch.rand(1, 8, 8, 16, generator=torch.Generator().manual_seed(8)).movedim(-1, 1)
    control = control.set_cond_hint(hint, 1.0, (0.0, end))
    control.set_previous_controlnet(previous)
    return [[text, {**more, "control": control, "control_apply_to_uncond": True}]
            for text, more in conditioning("flux", 1)]  # fmt: skip


def test_controlnet():
    model, positive = build("flux"), controlled(flux_controlnet())
    assert not torch.equal(run(model, "flux", positive), run(model, "flux"))
    assert_lanes_do_not_mix(model, "flux", positive)


def test_controlnet_is_spared_at_reused_steps():
    control, calls = flux_controlnet(), []
    control.control_model.register_forward_hook(lambda *_: calls.append(1))
    run(build("flux"), "flux", controlled(control))
    uncached = len(calls)
    calls.clear()
    run(reusing(build("flux")), "flux", controlled(control))
    assert uncached == STEPS and len(calls) == STEPS // 2


def test_controlnet_is_spared_though_another_prompt_comes_later():
    control, calls = flux_controlnet(), []
    control.control_model.register_forward_hook(lambda *_: calls.append(1))
    positive = ranged(controlled(control), 0.0, 0.5) + ranged(controlled(control), 0.5, 1.0)
    run(build("flux"), "flux", positive, cfg=1.0)
    uncached = len(calls)
    calls.clear()
    run(reusing(build("flux")), "flux", positive, cfg=1.0)
    assert len(calls) < uncached - 2


@pytest.fixture
def jumps(monkeypatch) -> list[int]:
    """The steps at which a lane's cache was not continued though there was one before."""
    found, goes_on_with = [], Lane.goes_on_with

    def seen(lane, signature, captured, step, beside):
        goes_on = goes_on_with(lane, signature, captured, step, beside)
        if lane.step >= 0 and not goes_on:
            found.append(step)
        return goes_on

    monkeypatch.setattr(Lane, "goes_on_with", seen)
    return found


def test_no_forecast_goes_on_over_the_end_of_one_of_two_controlnets(jumps):
    def through(end: float):
        first = controlled(flux_controlnet(), end)[0][1]["control"]
        run(reusing(build("flux"), order=1), "flux", controlled(flux_controlnet(), previous=first))

    through(1.0)
    assert not jumps
    through(0.5)
    assert len(jumps) == 2 and len(set(jumps)) == 1  # of both prompts


def test_no_forecast_goes_on_over_a_keyframe_of_hooks(jumps):
    run(reusing(build("sd3"), order=1), "sd3", *Conds.hooks("sd3"))
    assert not jumps
    run(reusing(build("sd3"), order=1), "sd3", *Conds.hooks_that_change_midway("sd3"))
    assert len(jumps) == 1  # of the prompt whose strength changes


def test_a_forecast_follows_a_strength_that_changes_little_by_little(jumps):
    frames = comfy.hooks.HookKeyframeGroup()
    for step in range(STEPS):
        share = step / STEPS
        frames.add(comfy.hooks.HookKeyframe(strength=0.8 + 0.4 * share, start_percent=share))
    positive = hooked(conditioning("sd3", 1), 1.0, frames)
    run(reusing(build("sd3"), order=1), "sd3", positive, conditioning("sd3", 2))
    assert not jumps


def test_a_pass_that_runs_in_full_keeps_its_controlnet(monkeypatch):
    """The pass of SkipLayerGuidance replaces a block itself, so nothing of it is reused."""
    model = SkipLayerGuidanceDiT.execute(build("flux"), 3.0, 0.0, 1.0, "1", "").args[0]
    refused, evaluate = [], CacheRun.evaluate

    def seen(run, call):
        if call.refusal is not None:
            refused.append(call.without_control is not None)
        return evaluate(run, call)

    monkeypatch.setattr(CacheRun, "evaluate", seen)
    run(reusing(model), "flux", controlled(flux_controlnet()), sampler="heun")
    assert len(refused) > STEPS and all(refused)


@pytest.mark.parametrize("tap", [StackTap, BranchTap])
def test_replaying_the_same_step_gives_the_controlled_output(tap):
    """The stack's residual holds what the ControlNet added; branches do not, and it is added anew."""
    patch, errors = replaying_each_step(build("flux"), tap)
    run(patch, "flux", controlled(flux_controlnet()))
    assert len(errors) >= STEPS and max(errors) <= 1e-6


def test_a_controlnet_still_guides_the_branches_at_reused_steps():
    net, calls = flux_controlnet(), [0]
    net.control_model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    run(reusing(build("flux"), granularity="branch"), "flux", controlled(net))
    assert calls[0] >= STEPS


# Above the model: what is below a reused step is not called, and nothing is continued over a jump.


def above(model, **correction):
    return reusing(model, granularity="output", **correction)


@pytest.fixture
def anew(monkeypatch) -> list[int]:
    """The steps at which the outputs before could not be compared."""
    found, start_anew = [], Trail.start_anew

    def seen(trail):
        if trail.steps_of(0) and trail.step < STEPS:  # not at the end of the run
            found.append(trail.step)
        start_anew(trail)

    monkeypatch.setattr(Trail, "start_anew", seen)
    return found


@pytest.mark.parametrize("make_guider", [perpendicular_guider, dual_guider])
def test_any_guider_goes_above(make_guider, reports):
    model = build("sd3")
    plain, cached = guided(make_guider, model), guided(make_guider, above(model))
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert (reports[0].evaluations_full, reports[0].evaluations_asked) == (18, 36)


@pytest.mark.parametrize("node", MODEL_NODES.values(), ids=MODEL_NODES)
def test_other_nodes_on_the_model_go_above(node, reports):
    model = node(build("sd3"))
    plain, cached = run(model, "sd3"), run(above(model), "sd3")
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert list(reports[0].step_kinds.values()).count("reuse") == STEPS // 2 and reports[0].repaid


def test_above_a_controlnet_is_not_run_at_reused_steps():
    control, calls = flux_controlnet(), []
    control.control_model.register_forward_hook(lambda *_: calls.append(1))
    run(above(build("flux")), "flux", controlled(control))
    assert len(calls) == STEPS // 2


def test_above_nothing_goes_on_over_a_controlnets_end(anew):
    run(above(build("flux")), "flux", controlled(flux_controlnet()))
    assert not anew
    first = controlled(flux_controlnet(), 0.5)[0][1]["control"]
    run(above(build("flux")), "flux", controlled(flux_controlnet(), previous=first))
    assert len(anew) == 1


def test_above_nothing_goes_on_over_a_conditionings_range(anew, reports):
    run(above(build("sd3")), "sd3", changes_at(6))
    assert anew == [6] and reports[0].step_kinds[6] == "full"


def test_above_nothing_goes_on_over_a_keyframe_of_hooks(anew):
    run(above(build("sd3")), "sd3", *Conds.hooks("sd3"))
    assert not anew
    run(above(build("sd3")), "sd3", *Conds.hooks_that_change_midway("sd3"))
    assert len(anew) == 1


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform"])
def test_above_context_windows_that_move_are_forecast_as_a_whole(schedule, reports):
    (windowed,) = ContextWindowsManualNode.execute(build("wan"), 5, 2, schedule, 1, False, "pyramid", 2).args
    latent = torch.full((1, 16, 9, 8, 8), 0.1)
    plain, cached = (run(model, "wan", latent=latent) for model in (windowed, above(windowed)))
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert list(reports[0].step_kinds.values()).count("reuse") == STEPS // 2


def test_above_a_guider_whose_conditionings_nobody_knows_is_computed(reports):
    def strange(model):
        guider = BasicGuider.execute(model, conditioning("sd3", 1)).args[0]
        outer = guider.outer_predict_noise

        def outer_predict_noise(x, timestep, *args, **kwargs):
            known, guider.conds = guider.conds, {"positive": [1, 2]}
            inner = guider.predict_noise
            guider.predict_noise = lambda *a, **k: (setattr(guider, "conds", known), inner(*a, **k))[1]
            try:
                return outer(x, timestep, *args, **kwargs)
            finally:
                guider.conds, guider.predict_noise = known, inner

        guider.outer_predict_noise = outer_predict_noise
        return guider

    model = build("sd3")
    assert torch.equal(guided(strange, above(model)), guided(strange, model))
    assert "too few computed steps could be continued" in reports[0].notes


def test_above_an_interrupt_leaves_nothing_behind():
    model = build("sd3")
    patch, plain = above(model), run(model, "sd3")

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(patch, "sd3", callback=raising_at(5))
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Trail)]
    assert torch.equal(run(model, "sd3"), plain)
