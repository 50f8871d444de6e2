"""What graphs do besides two prompts on one picture: more conditionings, more passes, parts of a run.

The oracle: the same plan run with every row of the model's batch by itself, so that no two lanes can mix.
"""

import comfy.controlnet
import comfy.hooks
import comfy.ldm.flux.controlnet
import comfy.ops
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_cfg import CFGNorm
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_model_advanced import ModelSamplingSD3, RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_perpneg import Guider_PerpNeg, PerpNeg
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from replay_each_step import replaying_each_step

import nodes
from comfyui_omnicache.nodes import host
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.branch_tap import BranchTap
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from comfyui_omnicache.omnicache.tap import StackTap
from tiny_models import CPU, MODELS, build, conditioning, sample

STEPS = 12


def reusing(model, ratio: float = 0.5, **correction):
    schedule = Schedule(Budget("reuse ratio", ratio), cost="even")
    return OmniCacheModelPatch.execute(model, schedule, Correction(**correction)).args[0]


@pytest.fixture
def reports(monkeypatch) -> list:
    """What each patched sampling run of the test reported."""
    collected: list = []
    monkeypatch.setattr(host, "_announce", collected.append)
    return collected


def run(model, family, positive=None, negative=None, steps=STEPS, latent=None, **options) -> torch.Tensor:
    """A sampling run on a latent that is not empty, for the parts of runs."""
    latent = torch.full((1, *MODELS[family].shape), 0.1) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, 3)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, options.pop("cfg", 3.0), "euler", "simple",
            positive or conditioning(family, 1), negative or conditioning(family, 2), latent, seed=3,
            disable_pbar=True, **options,
        )  # fmt: skip


def assert_lanes_do_not_mix(model, family, positive=None, negative=None, **options) -> None:
    """Runs the reusing model as the host batches it, and row by row; and checks that reuse happened."""
    patch = reusing(model)
    plain = run(model, family, positive, negative, **options)
    together = run(patch, family, positive, negative, **options)
    needed, patch.model.memory_required = patch.model.memory_required, lambda *args, **kwargs: 1e30
    apart = run(patch, family, positive, negative, **options)
    patch.model.memory_required = needed
    assert (together - apart).norm() <= 1e-3 * apart.norm()
    assert not torch.equal(together, plain)
    assert torch.equal(run(model, family, positive, negative, **options), plain)


def area(cond, x: int, width: int):
    return nodes.ConditioningSetArea().append(cond, width, 64, x, 0, 1.0)[0]


def masked(cond, left: bool):
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1.0
    return nodes.ConditioningSetMask().append(cond, mask if left else 1 - mask, "default", 1.0)[0]


def ranged(cond, start: float, end: float):
    return nodes.ConditioningSetTimestepRange().set_range(cond, start, end)[0]


def lora() -> dict[str, torch.Tensor]:
    weight = torch.randn(3 * 192, 4, generator=torch.Generator().manual_seed(5)) * 0.05
    key = "diffusion_model.joint_blocks.0.x_block.attn.qkv"
    return {f"{key}.lora_up.weight": weight, f"{key}.lora_down.weight": weight[:192].T.contiguous()}


def hooked(cond, strength: float):
    group = comfy.hooks.create_hook_lora(lora(), strength, 0.0)
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
    def timestep_ranges(family):
        return ranged(conditioning(family, 1), 0.0, 0.4) + ranged(conditioning(family, 4), 0.4, 1.0), None

    @staticmethod
    def three_averaged(family):
        return conditioning(family, 1) + conditioning(family, 4), conditioning(family, 2)

    @staticmethod
    def hooks(family):
        return hooked(conditioning(family, 1), 1.0), conditioning(family, 2)


@pytest.mark.parametrize("kind", ["areas", "masks", "three_averaged", "hooks"])
def test_conditionings(kind):
    positive, negative = getattr(Conds, kind)("sd3")
    assert_lanes_do_not_mix(build("sd3"), "sd3", positive, negative)


def test_a_conditioning_that_comes_in_midway_starts_with_a_full_evaluation(reports):
    positive, _ = Conds.timestep_ranges("sd3")
    result = run(reusing(build("sd3")), "sd3", positive)
    assert torch.isfinite(result).all() and reports[0].finished


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


def test_the_guider_with_three_conditionings():
    model = build("sd3")
    patch, results = reusing(model), []
    for target in (patch, model):
        guider = Guider_PerpNeg(target)
        guider.set_conds(conditioning("sd3", 1), conditioning("sd3", 2), conditioning("sd3", 6))
        guider.set_cfg(3.0, 1.0)
        latent = torch.zeros(1, 16, 8, 8)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
        with torch.inference_mode():
            results.append(
                guider.sample(
                    comfy.sample.prepare_noise(latent, 3), latent, comfy.samplers.sampler_object("euler"),
                    sigmas, disable_pbar=True, seed=3,
                )
            )  # fmt: skip
    assert torch.isfinite(results[0]).all() and not torch.equal(*results)


def test_context_windows_keep_lanes_of_their_own():
    model = ContextWindowsManualNode.execute(
        build("wan"), 4, 2, "standard_static", 1, False, "pyramid", 2
    ).args[0]
    latent = torch.full((1, 16, 8, 6, 6), 0.1)
    patch = reusing(model)
    result = run(patch, "wan", latent=latent)
    patch.model.memory_required = lambda *args, **kwargs: 1e30
    assert (run(patch, "wan", latent=latent) - result).norm() <= 1e-3 * result.norm()
    assert not torch.equal(result, run(model, "wan", latent=latent))


def test_without_guidance_only_one_prompt_is_evaluated(reports):
    run(reusing(build("flux")), "flux", cfg=1.0)
    facts = reports[0].as_dict()
    assert (facts["full"], facts["asked"]) == (6, 12)


def test_reference_latents():
    positive = [[text, {**more, "reference_latents": [torch.full((1, 16, 8, 8), 0.2)]}]
                for text, more in conditioning("flux", 1)]  # fmt: skip
    assert_lanes_do_not_mix(build("flux"), "flux", positive)


def test_image_to_image_and_inpainting():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    assert_lanes_do_not_mix(build("sd3"), "sd3", denoise=0.7)
    assert_lanes_do_not_mix(build("sd3"), "sd3", noise_mask=mask)


def test_ranges_of_steps_are_runs_of_their_own(reports):
    """KSamplerAdvanced and SplitSigmas: the second half has no cache from the first."""
    model = build("sd3")
    patch = reusing(model)
    for start, end in ((0, 12), (12, 24)):
        run(patch, "sd3", steps=24, start_step=start, last_step=end, force_full_denoise=end == 24)
    counts = [(facts["full"], facts["asked"]) for facts in (report.as_dict() for report in reports)]
    assert counts == [(12, 24), (12, 24)]


def test_two_patched_clones_in_one_graph_do_not_meet():
    model = build("sd3")
    half, third = reusing(model, 0.5), reusing(model, 0.34)
    alone = run(half, "sd3"), run(third, "sd3")
    again = run(half, "sd3"), run(third, "sd3")
    assert torch.equal(alone[0], again[0]) and torch.equal(alone[1], again[1])
    assert not torch.equal(*alone)


def test_two_experts_each_with_a_patch(reports):
    """Wan 2.2: one model for the noisy half of the steps, another for the rest."""
    high, low = reusing(build("wan")), reusing(build("wan"))
    first = run(high, "wan", steps=24, start_step=0, last_step=12)
    run(low, "wan", steps=24, start_step=12, last_step=24, latent=first, disable_noise=True)
    assert [report.finished for report in reports] == [True, True]


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


def controlled(control):
    hint = torch.rand(1, 8, 8, 16, generator=torch.Generator().manual_seed(8)).movedim(-1, 1)
    control = control.set_cond_hint(hint, 1.0, (0.0, 1.0))
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


@pytest.mark.parametrize("tap", [StackTap, BranchTap])
def test_replaying_the_same_step_gives_the_controlled_output(tap):
    """The stack's residual holds what the ControlNet added; branches do not, and it is added anew."""
    patch, errors = replaying_each_step(build("flux"), tap)
    run(patch, "flux", controlled(flux_controlnet()))
    assert len(errors) >= STEPS and max(errors) <= 1e-6


def test_a_controlnet_still_guides_the_branches_at_reused_steps():
    net, calls = flux_controlnet(), [0]
    net.control_model.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    patch = OmniCacheModelPatch.execute(
        build("flux"), Schedule(Budget("reuse ratio", 0.5), cost="even"), None, "branch"
    ).args[0]
    run(patch, "flux", controlled(net))
    assert calls[0] >= STEPS


def test_taking_the_patch_away_gives_the_plain_model_back():
    model = build("lumina2")
    before = sample(model, "lumina2")
    patch = reusing(model)
    sample(patch, "lumina2")
    assert torch.equal(sample(model, "lumina2"), before)
    forwards = [layer.forward for layer in model.model.diffusion_model.layers]
    assert not any(hasattr(forward, "is_omnicache_bridge") for forward in forwards)
