"""Sampling runs of the host's own model classes through the patch."""

import gc
import weakref

import comfy.model_management
import pytest
import torch
from comfyui_omnicache.nodes.host import KEY, patched
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.lane import Rows
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.run import CacheRun
from comfyui_omnicache.omnicache.schedule import Schedule

from tiny_models import MODELS, blocks_of, sample

FAMILIES = list(MODELS)


def with_reuse(model, ratio: float, **correction):
    schedule = Schedule(Budget("reuse ratio", ratio), cost="even")
    return OmniCacheModelPatch.execute(model, schedule, Correction(**correction)).args[0]


def count_block_calls(model) -> list[int]:
    calls = [0]

    def count(*_):
        calls[0] += 1

    for block in blocks_of(model):
        # Flux and SD3 call their blocks as modules, so the hook sees each forward.
        block.register_forward_hook(count)
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_that_reuses_nothing_changes_no_bit(family):
    model = MODELS[family]()
    assert torch.equal(sample(with_reuse(model, 0.0), family), sample(model, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_reuse_changes_the_result_and_leaves_the_model_as_it_was(family):
    model = MODELS[family]()
    before = sample(model, family)
    assert not torch.equal(sample(with_reuse(model, 0.5), family), before)
    assert torch.equal(sample(model, family), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_block_runs_at_a_reused_step(family):
    model = MODELS[family]()
    calls = count_block_calls(model)
    sample(with_reuse(model, 0.5), family, steps=12)
    assert calls[0] == 6 * len(blocks_of(model))


class ReplayEachStep(CacheRun):
    """Answers each full evaluation by replaying the residual it has just captured, at the same x and
    sigma."""

    largest = 0.0

    def __init__(self, tap) -> None:
        self.tap = tap

    def evaluate(self, call):
        full, residual = self.tap.capture(call.forward)
        again = self.tap.replay(call.forward, Rows.join(Rows.split(residual, 2)), call.has_control)
        error = ((again - full).norm() / full.norm()).item()
        ReplayEachStep.largest = max(ReplayEachStep.largest, error)
        return full

    def step_finished(self, step):
        pass

    def sampling_finished(self, samples):
        pass

    def close(self):
        return None


@pytest.mark.parametrize("family", FAMILIES)
def test_reusing_the_same_steps_residual_is_the_full_evaluation_to_rounding(family):
    model = MODELS[family]()
    ReplayEachStep.largest = 0.0
    result = sample(patched(model, lambda executing, sigmas, tap: ReplayEachStep(tap)), family, steps=4)
    assert 0.0 < ReplayEachStep.largest <= 1e-6
    assert torch.equal(result, sample(model, family, steps=4))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_evaluated_together_or_apart_give_the_same(family):
    model = with_reuse(MODELS[family](), 0.5)
    together = sample(model, family, batch=2)
    model.model.memory_required = lambda *args, **kwargs: 1e30  # the host then evaluates row by row
    assert torch.allclose(sample(model, family, batch=2), together, atol=1e-4)


@pytest.mark.parametrize(
    "sampler", ["heun", "dpm_2", "dpmpp_2m", "uni_pc", "res_multistep", "euler_ancestral"]
)
def test_other_samplers_run_through_and_nothing_reused_changes_no_bit(sampler):
    model = MODELS["sd3"]()
    assert torch.equal(
        sample(with_reuse(model, 0.0), "sd3", sampler=sampler), sample(model, "sd3", sampler=sampler)
    )
    assert torch.isfinite(sample(with_reuse(model, 0.4), "sd3", sampler=sampler)).all()


def test_the_last_of_two_patches_counts():
    model = MODELS["sd3"]()
    twice = with_reuse(with_reuse(model, 0.5), 0.0)
    assert len(twice.wrappers["outer_sample"][KEY]) == 1
    assert torch.equal(sample(twice, "sd3"), sample(model, "sd3"))


def test_a_callback_another_node_set_on_a_block_still_runs_at_full_steps():
    model, calls = MODELS["sd3"](), [0]
    other = model.clone()

    def callback(args, extra):
        calls[0] += 1
        return extra["original_block"](args)

    other.set_model_patch_replace(callback, "dit", "double_block", 1)
    sample(with_reuse(other, 0.5), "sd3", steps=12)
    assert calls[0] == 6


@pytest.mark.parametrize("error", [RuntimeError, comfy.model_management.InterruptProcessingException])
def test_an_exception_or_interrupt_leaves_nothing_behind(error):
    model, runs = MODELS["sd3"](), []
    clean = sample(model, "sd3")

    def make_run(executing, sigmas, tap):
        from comfyui_omnicache.omnicache.correction import Corrector

        schedule = Schedule(Budget("reuse ratio", 0.5), cost="even")
        run = CacheRun(schedule.plan_for(sigmas), Corrector(Correction(), sigmas, None, 0.5), tap)
        runs.append(weakref.ref(run))
        return run

    def stop(step, *_):
        if step == 5:
            raise error()

    patch = patched(model, make_run)
    with pytest.raises(error):
        sample(patch, "sd3", callback=stop)
    gc.collect()
    assert runs[0]() is None
    assert "dit" not in patch.model_options["transformer_options"].get("patches_replace", {})
    assert torch.equal(sample(model, "sd3"), clean)


def test_the_state_of_a_run_is_gone_after_it():
    model, runs = MODELS["sd3"](), []

    def make_run(executing, sigmas, tap):
        runs.append(weakref.ref(tap))
        return ReplayEachStep(tap)

    sample(patched(model, make_run), "sd3")
    gc.collect()
    assert runs[0]() is None


def test_too_few_steps_are_refused_before_the_model_is_called():
    model = MODELS["sd3"]()
    calls = count_block_calls(model)
    with pytest.raises(ValueError, match="steps: 4 are too few"):
        sample(with_reuse(model, 0.5), "sd3", steps=4)
    assert calls[0] == 0


def test_easycache_on_the_same_model_is_refused():
    model = MODELS["sd3"]()
    model.model_options["transformer_options"]["easycache"] = object()
    with pytest.raises(ValueError, match="EasyCache"):
        sample(with_reuse(model, 0.5), "sd3")


def test_a_unet_is_refused_with_what_is_supported():
    class UNetModel(torch.nn.Module):
        pass

    model = MODELS["sd3"]()
    model.model.diffusion_model = UNetModel()
    with pytest.raises(ValueError, match="model: UNetModel .*sd3"):
        with_reuse(model, 0.5)
