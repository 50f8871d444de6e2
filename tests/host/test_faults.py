"""What goes wrong in the middle of a run: nothing stays behind, and the next run is right."""

import gc
import weakref

import comfy.model_management
import pytest
import torch

from comfyui_omnicache.nodes import host
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache import lane, tap
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from tiny_models import build, sample

STEPS = 12


def reusing(model, ratio: float = 0.5):
    return OmniCacheModelPatch.execute(model, Schedule(Budget("reuse ratio", ratio), cost="even")).args[0]


@pytest.fixture
def reports(monkeypatch) -> list:
    collected: list = []
    monkeypatch.setattr(host, "_announce", collected.append)
    return collected


def assert_clean(patch, model, plain, cached) -> None:
    """The patch and the model give what they gave before, and no cache is alive."""
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, lane.Lane | tap.BlockTap)]
    assert torch.equal(sample(model, "sd3"), plain)
    assert torch.equal(sample(patch, "sd3"), cached)


@pytest.mark.parametrize("step", range(STEPS - 1))
def test_an_interrupt_at_any_step(step, reports):
    model = build("sd3")
    patch = reusing(model)
    plain, cached = sample(model, "sd3"), sample(patch, "sd3")

    def stop(now, *_):
        if now == step:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patch, "sd3", callback=stop)
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


@pytest.mark.parametrize("allocation", [0, 2, 4])
@pytest.mark.parametrize("where", ["clone", "movedim", "sub"])
def test_out_of_memory_at_an_allocation_of_ours(where, allocation, monkeypatch):
    """An error of this kind goes up to the host, which knows what to do with it; nothing is swallowed."""
    model = build("sd3")
    patch = reusing(model)
    plain, cached, calls = sample(model, "sd3"), sample(patch, "sd3"), [0]
    places = {"clone": (torch.Tensor, "clone"), "movedim": (torch.Tensor, "movedim"), "sub": (torch, "sub")}
    original = getattr(*places[where])

    def allocate(*args, **kwargs):
        if sampling[0]:
            calls[0] += 1
            if calls[0] == allocation + 1:
                raise comfy.model_management.OOM_EXCEPTION("out of memory")
        return original(*args, **kwargs)

    sampling = [False]

    def start(*_):
        sampling[0] = True

    with monkeypatch.context() as patched_torch:
        patched_torch.setattr(*places[where], allocate)
        with pytest.raises(comfy.model_management.OOM_EXCEPTION):
            sample(patch, "sd3", callback=start)
    assert_clean(patch, model, plain, cached)


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
