"""Repay in the host: what its samplers answer, where the state is written to, and that nothing else
changes."""

import comfy.model_base as base
import comfy.samplers
import comfy.supported_models as supported
import numpy as np
import pytest
import torch

from cached_runs import run
from comfyui_omnicache.nodes import cached_run
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.sampler_response import is_of_the_host, response_of
from comfyui_omnicache.nodes.samplers import FREE_RUNNING_SAMPLERS
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.response import Response
from comfyui_omnicache.omnicache.schedule import Schedule
from sampler_table import sampler_names
from tiny_models import MODELS, WIDTH, Tiny, build, conditioning, sample

SIGMAS = np.linspace(1, 0, 13).tolist()
# Samplers that go on from another tensor, or from none, and those that read the parts of guidance.
WITHOUT = (*FREE_RUNNING_SAMPLERS, "lcm", "sa_solver", "sa_solver_pece")


def patched(model, ratio: float = 0.5, granularity: str = "auto", **correction):
    schedule = Schedule(Budget("reuse ratio", ratio))
    return OmniCacheModelPatch.execute(model, schedule, Correction(**correction), granularity).args[0]


def answer(name: str, sigmas=SIGMAS) -> Response | None:
    return response_of(comfy.samplers.sampler_object(name), sigmas, build("sd3"))


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_euler_answers_as_its_formula_says(name):
    asked, formula = answer(name), Response.of_euler(SIGMAS)
    assert asked.held == "reported" and asked.stages == 1
    assert asked.outputs == pytest.approx(formula.outputs, abs=1e-6)
    assert asked.states == pytest.approx(formula.states) and asked.scales == pytest.approx(formula.scales)


def test_a_multistep_sampler_uses_an_output_twice_and_in_all_as_eulers_does():
    """Adams-Bashforth: each output comes in over the following steps too, and the weights add up to the
    step."""
    outputs = answer("lms").outputs[:, 0]
    assert outputs[4:8] == pytest.approx(np.full(4, -1 / 12), rel=0.05)


def test_heuns_two_evaluations_at_a_step_share_the_steps_around_it():
    response = answer("heun")
    assert response.stages == 2
    assert response.outputs[5] == pytest.approx([-1 / 24, -1 / 24], abs=1e-6)


def test_uni_pc_holds_its_state_in_other_units_than_it_evaluates():
    response = answer("uni_pc")
    assert response.scales[6] == pytest.approx((1 + SIGMAS[6] ** 2) ** 0.5, rel=0.1)


def test_ipndm_reports_a_tensor_that_it_does_not_go_on_from():
    assert answer("ipndm").held == "evaluated" and answer("deis").held == "evaluated"


@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_is_asked_without_drawing_from_the_random_numbers(name):
    build("sd3")  # draws its weights, once
    before = torch.get_rng_state()
    response = answer(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert (response is None) == (name in WITHOUT or "cfg_pp" in name)
    if response is not None:
        assert np.isfinite(response.outputs).all() and np.isfinite(response.states).all()


@pytest.mark.parametrize("granularity", ["output", "stack", "branch"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "uni_pc", "ipndm", "dpm_2"])
def test_repay_changes_the_run_and_nothing_reused_changes_no_bit(granularity, sampler):
    model = build("sd3")
    options = {"sampler": sampler, "steps": 12}
    plain = sample(model, "sd3", **options)
    paid, unpaid = (
        sample(patched(model, 0.5, granularity, repay=repay), "sd3", **options) for repay in (1.0, 0.0)
    )
    assert torch.isfinite(paid).all() and not torch.equal(paid, unpaid)
    assert torch.equal(sample(patched(model, 0.0, granularity), "sd3", **options), plain)
    assert torch.equal(sample(model, "sd3", **options), plain)


def test_the_report_says_where_and_how_much(reports):
    sample(patched(build("sd3")), "sd3", steps=12)
    report = reports[0]
    after_reused = [
        step
        for step in range(1, 12)
        if report.step_kinds[step] == "full" and report.step_kinds[step - 1] == "reuse"
    ]
    # The last step too, if it is computed: what it reports is the state that its update goes on from.
    assert sorted(report.repaid) == after_reused and all(0 < share < 1 for share in report.repaid.values())
    assert [bool(share) for share in report.as_dict()["repaid"]] == [
        step in after_reused for step in range(12)
    ]


def test_the_paper_and_the_other_modes_are_not_repaid(reports):
    for mode in ("age-aware", "off"):
        sample(patched(build("sd3"), mode=mode), "sd3", steps=12)
    assert [report.repaid for report in reports] == [{}, {}]
    assert [report.granularity for report in reports] == ["stack", "stack"]


@pytest.mark.parametrize(("family", "repays"), [("sd3", True), ("pixart", False)])
def test_samplers_that_add_noise_go_by_blocks_and_repay_flow_models_only(family, repays, reports):
    model, schedule = build(family), Schedule(Budget("reuse ratio", 0.5))
    patch = OmniCacheModelPatch.execute(model, schedule).args[0]
    sample(patch, family, steps=12, sampler="euler_ancestral")
    assert reports[0].granularity == "stack" and bool(reports[0].repaid) == repays


def test_an_output_cannot_be_corrected_by_the_noise_of_blocks():
    with pytest.raises(ValueError, match="granularity: 'output' .* mode 'age-aware' .* 'auto' or 'stack'"):
        patched(build("sd3"), granularity="output", mode="age-aware")


UNET = Tiny(
    supported.SD15,
    {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
     "channel_mult": (1, 2), "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
     "transformer_depth_middle": 1, "context_dim": WIDTH, "num_heads": 2, "use_spatial_transformer": True,
     "legacy": False},
    lambda config: base.BaseModel(config, device=torch.device("cpu")), (4, 8, 8), (),
)  # fmt: skip


@pytest.mark.parametrize("family", [*MODELS, "unet"])
def test_every_model_goes_above_its_blocks(family, monkeypatch, reports):
    """A U-Net too, which has no chain of blocks."""
    monkeypatch.setitem(MODELS, "unet", UNET)
    model = build(family)
    plain, cached = sample(model, family), sample(patched(model, 0.5, "output"), family)
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert (reports[0].evaluations_full, reports[0].evaluations_asked) == (12, 24) and not reports[0].notes
    assert reports[0].repaid and reports[0].cache_bytes > 0
    assert torch.equal(sample(patched(model, 0.0, "output"), family), plain)


class Stranger:
    """A sampler function of another pack, whose module is not the host's."""

    def __init__(self, step) -> None:
        self.step, self.calls = step, 0

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        self.calls += 1
        old = None
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(x.shape[0]), **extra_args)
            output = (x - denoised) / sigmas[i]
            callback({"x": x, "i": i, "denoised": denoised})
            x, old = self.step(x, output, old, sigmas[i + 1] - sigmas[i]), output
        return x


def custom(model, function):
    latent = torch.zeros(1, 16, 8, 8)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 12)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, comfy.sample.prepare_noise(latent, 1), 3.0, comfy.samplers.KSAMPLER(function), sigmas,
            conditioning("sd3", 1), conditioning("sd3", 2), latent, disable_pbar=True, seed=1,
        )  # fmt: skip


def test_a_strangers_class_around_a_function_of_the_host_is_not_the_hosts():
    class More(comfy.samplers.KSAMPLER):
        pass

    euler = comfy.k_diffusion.sampling.sample_euler
    assert is_of_the_host(comfy.samplers.KSAMPLER(euler)) and not is_of_the_host(More(euler))


def test_a_strangers_euler_is_noticed_and_repaid_as_the_hosts_is(reports):
    model = patched(build("sd3"))
    own = Stranger(lambda x, output, old, length: x + output * length)
    assert not is_of_the_host(comfy.samplers.KSAMPLER(own))
    theirs, ours = custom(model, own), custom(model, comfy.k_diffusion.sampling.sample_euler)
    assert own.calls == 1  # it is watched, never tried
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert reports[0].repaid.keys() == reports[1].repaid.keys() and reports[0].repaid


def test_a_state_that_nobody_may_write_into_stops_repay_and_not_the_run(reports):
    """As torch guards what was made in inference mode."""

    def guarded(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(x.shape[0]), **extra_args)
            output = (x - denoised) / sigmas[i]
            with torch.inference_mode(False), torch.no_grad():
                callback({"x": x, "i": i, "denoised": denoised})
            x = x + output * (sigmas[i + 1] - sigmas[i])
        return x

    assert torch.isfinite(custom(patched(build("sd3")), guarded)).all()
    assert reports[0].evaluations_reused and "could not be written into" in next(iter(reports[0].notes))


@pytest.mark.parametrize("last", [12, 13, 1000, -1])
def test_a_sampler_that_reports_once_more_at_the_end_is_no_fault(last, reports):
    def once_more(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(x.shape[0]), **extra_args)
            output = (x - denoised) / sigmas[i]
            callback({"x": x, "i": i, "denoised": denoised})
            x = x + output * (sigmas[i + 1] - sigmas[i])
        for _ in range(2):
            model(x, sigmas[-2] * x.new_ones(x.shape[0]), **extra_args)
            callback({"x": x, "i": last, "denoised": denoised})
        return x

    assert torch.isfinite(custom(patched(build("sd3"), 0.6), once_more)).all()
    assert reports[0].repaid and reports[0].finished


def test_a_stranger_that_goes_on_otherwise_is_left_alone(reports):
    def two_steps(x, output, old, length):
        return x + (output if old is None else 1.5 * output - 0.5 * old) * length

    custom(patched(build("sd3")), Stranger(two_steps))
    assert reports[0].evaluations_reused and reports[0].repaid == {}


def test_a_sampler_that_the_host_changed_is_not_repaid_and_goes_on(monkeypatch, reports):
    monkeypatch.setattr(cached_run, "response_of", lambda *_: None)
    sample(patched(build("sd3")), "sd3", steps=12)
    assert reports[0].evaluations_reused and reports[0].repaid == {}


@pytest.mark.parametrize("sampler", ["euler", "ipndm"])
def test_outside_of_an_inpainting_mask_nothing_moves(sampler, reports):
    model, latent = build("sd3"), torch.full((1, 16, 8, 8), 0.1)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    options = {"latent": latent, "noise_mask": mask, "sampler": sampler}
    cached, plain = run(patched(model), "sd3", **options), run(model, "sd3", **options)
    assert torch.allclose(cached[..., 4:], latent[..., 4:], atol=1e-5)
    assert torch.allclose(cached[..., 4:], plain[..., 4:], atol=1e-5)
    assert not torch.equal(cached[..., :4], plain[..., :4])
    assert bool(reports[0].repaid) == (sampler == "euler")


def test_parts_of_a_run_are_repaid_each_by_itself(reports):
    model = patched(build("sd3"))
    run(model, "sd3", steps=24, last_step=12, force_full_denoise=False)
    run(model, "sd3", steps=24, start_step=12, disable_noise=True)
    assert [len(report.step_kinds) for report in reports] == [12, 12]
    assert all(report.repaid for report in reports)


def test_rows_of_a_batch_are_repaid_each_by_itself():
    model = patched(build("sd3"))
    latent = torch.zeros(2, 16, 8, 8)
    both = run(model, "sd3", latent=latent)
    noise = comfy.sample.prepare_noise(latent, 3)
    with torch.inference_mode():
        second = comfy.sample.sample(
            model, noise[1:], 12, 3.0, "euler", "simple", conditioning("sd3", 1), conditioning("sd3", 2),
            latent[1:], seed=3, disable_pbar=True,
        )  # fmt: skip
    assert torch.allclose(both[1:], second, atol=1e-4)
