"""Sampling runs of the host's own model classes through the patch."""

import gc
import itertools
import weakref

import comfy.model_management
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cached_runs import reusing
from comfyui_omnicache.nodes.host import KEY, patched
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction, Corrector
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.run import CacheRun
from comfyui_omnicache.omnicache.schedule import Schedule
from comfyui_omnicache.omnicache.storage import Kept
from comfyui_omnicache.omnicache.tap import StackTap
from tiny_models import build, count_leaf_calls, raising_at, sample


@pytest.mark.parametrize(
    "sampler", ["heun", "dpm_2", "dpmpp_2m", "uni_pc", "res_multistep", "euler_ancestral"]
)
def test_other_samplers_run_through_and_nothing_reused_changes_no_bit(sampler):
    model = build("sd3")
    assert torch.equal(
        sample(reusing(model, 0.0), "sd3", sampler=sampler), sample(model, "sd3", sampler=sampler)
    )
    assert torch.isfinite(sample(reusing(model, 0.4), "sd3", sampler=sampler)).all()


def test_the_last_of_two_patches_counts():
    model = build("sd3")
    twice = reusing(reusing(model, 0.5), 0.0)
    assert len(twice.wrappers["outer_sample"][KEY]) == 1
    assert torch.equal(sample(twice, "sd3"), sample(model, "sd3"))


def test_a_callback_another_node_set_on_a_block_still_runs_at_full_steps():
    model, calls = build("sd3"), [0]
    other = model.clone()

    def callback(args, extra):
        calls[0] += 1
        return extra["original_block"](args)

    other.set_model_patch_replace(callback, "dit", "double_block", 1)
    sample(reusing(other, 0.5), "sd3", steps=12)
    assert calls[0] == 6


@pytest.mark.parametrize("error", [RuntimeError, comfy.model_management.InterruptProcessingException])
def test_an_exception_or_interrupt_leaves_nothing_behind(error):
    model, runs = build("sd3"), []
    clean = sample(model, "sd3")

    def make_run(sampling, blocks):
        schedule = Schedule(Budget("reuse ratio", 0.5), cost="even")
        corrector = Corrector(Correction(), sampling.sigmas, None, 0.5, range(len(sampling.sigmas)))
        run = CacheRun(schedule.plan_for(sampling.sigmas), corrector, StackTap(blocks))
        runs.append(weakref.ref(run))
        return run

    patch = patched(model, make_run)
    with pytest.raises(error):
        sample(patch, "sd3", callback=raising_at(5, error))
    gc.collect()
    assert runs[0]() is None
    assert "dit" not in patch.model_options["transformer_options"].get("patches_replace", {})
    assert torch.equal(sample(model, "sd3"), clean)


def test_the_state_of_a_run_is_gone_after_it():
    model, taps = build("sd3"), []

    class Uncached:
        def __init__(self, blocks):
            self.tap = StackTap(blocks)
            taps.append(weakref.ref(self.tap))

        def evaluate(self, call):
            return self.tap.capture(call.forward, Kept.as_is)[0]

        def spares_control(self, rows, x): ...
        def step_finished(self, step): ...
        def sampling_finished(self, samples): ...
        def close(self): ...

    sample(patched(model, lambda sampling, blocks: Uncached(blocks)), "sd3")
    gc.collect()
    assert taps[0]() is None


def test_too_few_steps_are_refused_before_the_model_is_called():
    model = build("sd3")
    calls = count_leaf_calls(model, "sd3")
    with pytest.raises(ValueError, match="OmniCache on the model .*: steps: 4 are too few"):
        sample(reusing(model, 0.5), "sd3", steps=4)
    assert calls[0] == 0


def test_a_budget_that_leaves_nothing_to_reuse_says_so(told):
    schedule = Schedule(Budget("full steps", 30), cost="even")
    sample(OmniCacheModelPatch.execute(build("sd3"), schedule).args[0], "sd3", steps=12)
    assert told == ["OmniCache: budget: it leaves all 12 steps of this run to compute; nothing is reused"]


def test_a_mode_without_the_profile_it_needs_is_refused_on_the_node():
    schedule = Schedule(Budget("reuse ratio", 0.5), cost="even")
    with pytest.raises(ValueError, match="mode 'paper' .* has no profile"):
        OmniCacheModelPatch.execute(build("sd3"), schedule, Correction(mode="paper"))


def test_easycache_on_the_same_model_is_refused():
    model = build("sd3")
    model.model_options["transformer_options"]["easycache"] = object()
    with pytest.raises(ValueError, match="EasyCache"):
        sample(reusing(model, 0.5), "sd3")


class Waits(TorchDispatchMode):
    """Counts what makes the host's thread wait for a GPU: what depends on a value of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        names = ("aten.item", "aten.is_nonzero", "aten._local_scalar_dense", "aten.nonzero", "aten.equal")
        self.count += str(function).startswith(names)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(
    ("granularity", "mode"),
    [
        *itertools.product(["stack", "branch"], ["age-aware", "per-band", "forecast"]),
        ("output", "forecast"),
    ],
)
def test_no_step_waits_for_the_device_because_of_the_patch(granularity, mode):
    counts = {}
    for steps in (10, 20):
        model = build("wan")
        for name, target in (("plain", model), ("cached", reusing(model, 0.5, granularity, mode=mode))):
            with Waits() as waits:
                sample(target, "wan", steps=steps)
            counts[name, steps] = waits.count
    assert counts["cached", 20] - counts["cached", 10] <= counts["plain", 20] - counts["plain", 10]
