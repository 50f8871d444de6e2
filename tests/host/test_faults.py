"""What goes wrong in the middle of a run: nothing stays behind, and the next run is right."""

import gc
import sys
import weakref

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from conftest_paths import ROOT
from torch.overrides import TorchFunctionMode

from cached_runs import STEPS, reusing, row_by_row
from comfyui_omnicache.omnicache import lane, tap
from tiny_models import build, conditioning, raising_at, sample


def assert_no_cache_is_alive() -> None:
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, lane.Lane | tap.BlockTap)]


def assert_clean(patch, model, plain, cached) -> None:
    """The patch and the model give what they gave before, and no cache is alive."""
    assert_no_cache_is_alive()
    assert torch.equal(sample(model, "sd3"), plain)
    assert torch.equal(sample(patch, "sd3"), cached)


@pytest.mark.parametrize("step", range(STEPS - 1))
def test_an_interrupt_at_any_step(step, reports):
    model = build("sd3")
    patch = reusing(model)
    plain, cached = sample(model, "sd3"), sample(patch, "sd3")

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patch, "sd3", callback=raising_at(step))
    assert not reports[-1].finished and "stopped before the end" in reports[-1].summary()
    assert_clean(patch, model, plain, cached)


@pytest.mark.parametrize("call", [0, 7, 13, 17])
def test_an_exception_in_a_block(call):
    model = build("sd3")
    patch = reusing(model)
    plain, cached, calls = sample(model, "sd3"), sample(patch, "sd3"), [0]

    def fail(*_):
        if calls[0] == call:
            raise RuntimeError("a block failed")
        calls[0] += 1

    hooks = [block.register_forward_hook(fail) for block in model.model.diffusion_model.joint_blocks]
    with pytest.raises(RuntimeError, match="a block failed"):
        sample(patch, "sd3")
    for hook in hooks:
        hook.remove()
    assert_clean(patch, model, plain, cached)


class Allocations(TorchFunctionMode):
    """Notices each tensor that the pack's own code allocates, by the line that does, and can fail at one."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.places: list[str] = []
        self._fail_at = fail_at

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        frame = sys._getframe(1)
        if frame.f_code.co_filename.startswith(OURS) and isinstance(out, torch.Tensor):
            given = [
                part for part in torch.utils._pytree.tree_leaves((args, kwargs)) if torch.is_tensor(part)
            ]
            if all(part.untyped_storage().data_ptr() != out.untyped_storage().data_ptr() for part in given):
                self.places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                if len(self.places) - 1 == self._fail_at:
                    raise comfy.model_management.OOM_EXCEPTION("out of memory")
        return out


OURS = tuple(str(ROOT / folder) for folder in ("omnicache", "nodes"))


def test_out_of_memory_at_any_allocation_of_ours():
    """An error of this kind goes up to the host, which knows what to do with it; nothing is swallowed."""
    model = build("sd3")
    patch = reusing(model, filter="low-high")
    plain, cached = sample(model, "sd3"), sample(patch, "sd3")
    with Allocations() as seen:
        sample(patch, "sd3")
    # Of each line that allocates, the first time and the last.
    first = {place: number for number, place in reversed(list(enumerate(seen.places)))}
    last = {place: number for number, place in enumerate(seen.places)}
    assert len(first) >= 4
    for number in sorted({*first.values(), *last.values()}):
        with Allocations(fail_at=number) as failing:
            with pytest.raises(comfy.model_management.OOM_EXCEPTION):
                sample(patch, "sd3")
        assert failing.places == seen.places[: number + 1]
        assert_no_cache_is_alive()
    assert_clean(patch, model, plain, cached)


def euler_that_changes(change, at: int) -> comfy.samplers.KSAMPLER:
    """Euler, with a change of the state before this step."""

    def sample_changing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for step in range(len(sigmas) - 1):
            if step == at:
                x = change(x)
            rows = x.new_ones(x.shape[0], dtype=sigmas.dtype)
            denoised = model(x, sigmas[step] * rows, **extra_args)
            if callback is not None:
                callback({"x": x, "i": step, "sigma": sigmas[step], "denoised": denoised})
            x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        return x

    return comfy.samplers.KSAMPLER(sample_changing)


CHANGES = {
    "larger": lambda x: torch.nn.functional.interpolate(x, scale_factor=1.5, mode="nearest"),
    "other aspect": lambda x: torch.cat((x, x), dim=-1)[..., :4, :],
    "double precision": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "more pictures": lambda x: torch.cat((x, x)),
}


@pytest.mark.parametrize("at", [6, 7])
@pytest.mark.parametrize("change", CHANGES)
def test_a_shape_or_type_that_changes_midway_runs_full_until_there_are_caches_again(change, at, reports):
    model = build("sd3")
    patch = reusing(model)
    cached = sample(patch, "sd3")
    sampler, latent = euler_that_changes(CHANGES[change], at), torch.zeros(1, 16, 8, 8)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)

    def changing(target) -> torch.Tensor:
        with torch.inference_mode():
            return comfy.sample.sample_custom(
                target, comfy.sample.prepare_noise(latent, 1), 3.0, sampler, sigmas,
                conditioning("sd3", 1), conditioning("sd3", 2), latent, disable_pbar=True, seed=1,
            )  # fmt: skip

    result, expected = changing(patch), changing(model)
    report = reports[-1]
    assert result.shape == expected.shape and result.dtype == expected.dtype
    assert torch.isfinite(result).all() and not torch.equal(result, expected)
    with row_by_row(patch):
        apart = changing(patch)
    assert (apart - result).norm() <= (0.1 if change == "bfloat16" else 1e-3) * result.norm()
    kinds = [report.step_kinds[step] for step in range(STEPS)]
    planned = [reports[0].step_kinds[step] for step in range(STEPS)]
    assert kinds[:at] == planned[:at]
    if planned[at] == "reuse":
        assert kinds[at] == "full" and report.notes["the latent's shape, type or device changed"] == 1
    assert kinds[-3:] == planned[-3:]  # reuse has come back
    assert_no_cache_is_alive()
    assert torch.equal(sample(patch, "sd3"), cached)


def test_nan_in_a_block_stays_in_its_picture_and_its_run():
    model = build("sd3")
    patch = reusing(model)
    plain, cached, calls = sample(model, "sd3"), sample(patch, "sd3"), [0]

    def spoil(module, args, out):
        calls[0] += 1
        if calls[0] == 4:
            out[1][0] = torch.nan  # the first row of the batch

    hook = model.model.diffusion_model.joint_blocks[0].register_forward_hook(spoil)
    spoilt = sample(patch, "sd3", batch=2)
    hook.remove()
    assert not torch.isfinite(spoilt[0]).all() and torch.isfinite(spoilt[1]).all()
    assert_clean(patch, model, plain, cached)


def test_many_runs_give_the_first_result_and_keep_nothing():
    model = build("sd3")
    patch = reusing(model)
    first = sample(patch, "sd3", steps=8)
    gc.collect()
    tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
    for _ in range(50):
        assert torch.equal(sample(patch, "sd3", steps=8), first)
    gc.collect()
    assert sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()) <= tensors + 2


def test_a_cache_does_not_outlive_its_node():
    model = build("sd3")
    patch = weakref.ref(reusing(model))
    gc.collect()
    assert patch() is None
