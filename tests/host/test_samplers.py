"""Every sampler in the host's menu, on the image demo model."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_advanced_samplers

from cached_runs import reusing
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.samplers import (
    FREE_RUNNING_SAMPLERS,
    amplifies,
    draws_noise,
    name_of,
    reads_guidance,
)
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from in_process import ROOT
from sampler_table import measure, sampler_names
from tiny_models import build, conditioning


def test_the_document_tells_of_each_sampler():
    text = (ROOT / "docs" / "samplers.md").read_text()
    assert [name for name in sampler_names() if f"| {name} |" not in text] == []


LCM_UPSCALE = {"scale_ratio": 1.0, "scale_steps": -1, "upscale_method": "bislerp"}


@pytest.mark.parametrize(
    ("node", "inputs", "needs_parts"),
    [("SamplerEulerCFGpp", {"version": "alternative"}, True), ("SamplerLCMUpscale", LCM_UPSCALE, False)],
)
def test_samplers_outside_the_menu_are_told_too(node, inputs, needs_parts):
    name = name_of(getattr(nodes_advanced_samplers, node).execute(**inputs).args[0])
    assert amplifies(name) and reads_guidance(name) == needs_parts


@pytest.mark.parametrize("sampler", sampler_names())
def test_nothing_reused_changes_no_bit(demo, sampler):
    schedule = Schedule(Budget("reuse ratio", 0.0), cost="even")
    patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
    plain = demo.sample(demo.model, sampler, 8, 1)
    assert torch.isfinite(plain).all() and torch.equal(demo.sample(patch, sampler, 8, 1), plain)


@pytest.mark.parametrize("sampler", sampler_names())
def test_reuse_keeps_the_picture(demo, sampler):
    row = measure(demo, sampler, steps=16, batch=2)
    assert row.corrected == (row.with_repay if row.repays else row.without_repay)
    if sampler in FREE_RUNNING_SAMPLERS:
        assert row.corrected == 100.0  # uncached
    elif not amplifies(sampler) and not draws_noise(sampler):
        assert row.corrected > row.uncorrected
    elif not amplifies(sampler):
        assert row.corrected > 18.0  # the picture of the seed; what is gained depends on the profile


# Evaluations of each row in a step: docs/samplers.md lists how many a run of 24 steps makes.
STAGES = {"euler": 1, "uni_pc": 1, "heun": 2, "dpm_2": 2, "heunpp2": 3, "seeds_3": 3, "sa_solver_pece": 2}


@pytest.mark.parametrize("sampler", STAGES)
def test_evaluations_are_keyed_by_step_and_stage(demo, sampler, reports):
    """At a reused step every stage is a reuse, from the cache of the same stage."""
    schedule = Schedule(Budget("reuse ratio", 0.4), cost="even")
    patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
    counted, calls = demo.model.clone(), [0]

    def count(apply_model, arguments):
        calls[0] += 1
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    counted.set_model_unet_function_wrapper(count)
    demo.sample(counted, sampler, 16, 1)
    demo.sample(patch, sampler, 16, 1)
    report = reports[0]
    assert report.finished and not report.notes
    assert 15 * STAGES[sampler] <= calls[0] <= 16 * STAGES[sampler]  # the last steps have fewer stages
    assert report.evaluations_asked == 2 * calls[0]
    assert [report.step_kinds[step] for step in range(16)].count("reuse") == 6
    assert report.evaluations_reused == 2 * 6 * STAGES[sampler]


@pytest.mark.parametrize("sampler", FREE_RUNNING_SAMPLERS)
def test_a_sampler_that_chooses_its_own_steps_runs_uncached_with_a_message(demo, sampler, reports, told):
    schedule = Schedule(Budget("reuse ratio", 0.4), cost="even")
    patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
    assert torch.equal(demo.sample(patch, sampler, 12, 1), demo.sample(demo.model, sampler, 12, 1))
    assert len(told) == 1 and f"sampler: {sampler} chooses its own steps" in told[0]
    assert reports == []


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("lcm", "sampler: lcm makes small differences large"),
        ("euler_cfg_pp", "makes small differences large"),
        (
            "euler_ancestral",
            "calibrated with euler, which promises too much for it. Calibrate with euler_anc",
        ),
    ],
)
def test_what_a_sampler_does_to_reuse_is_said_on_the_node(demo, sampler, words, told):
    schedule = Schedule(Budget("reuse ratio", 0.4), profile=demo.profile)
    demo.sample(OmniCacheModelPatch.execute(demo.model, schedule).args[0], sampler, 12, 1)
    assert len(told) == 1 and words in told[0]


def test_nothing_is_said_of_euler(demo, told):
    schedule = Schedule(Budget("reuse ratio", 0.4), cost="even")
    demo.sample(OmniCacheModelPatch.execute(demo.model, schedule).args[0], "euler", 12, 1)
    assert told == []


def test_a_sampler_that_never_reports_its_steps_runs_in_full(reports):
    """Where it is cannot be known, and counting its calls would be wrong for all but the simplest."""

    def sample_silently(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = model(x, now * x.new_ones(x.shape[0]), **extra_args)
            x = x + (x - denoised) / now * (after - now)
        return x

    model, results = build("sd3"), []
    latent, sampler = torch.zeros(1, 16, 8, 8), comfy.samplers.KSAMPLER(sample_silently)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 12)
    for target in (model, reusing(model)):
        with torch.inference_mode():
            results.append(
                comfy.sample.sample_custom(
                    target, comfy.sample.prepare_noise(latent, 1), 3.0, sampler, sigmas,
                    conditioning("sd3", 1), conditioning("sd3", 2), latent, disable_pbar=True, seed=1,
                )
            )  # fmt: skip
    assert torch.equal(*results)
    assert (reports[0].evaluations_full, reports[0].evaluations_reused) == (24, 0)
