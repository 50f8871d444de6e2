"""The rivals' plans on real model classes."""

import numpy as np
import pytest
import torch

from comfyui_omnicache.nodes import host
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.rival_schedule import RivalSchedule
from comfyui_omnicache.nodes.trajectory_calibrator import TrajectoryCalibrator
from comfyui_omnicache.omnicache.rivals import RIVALS
from tiny_models import MODELS, build, conditioning, sample


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


@pytest.mark.parametrize("method", list(RIVALS))
def test_each_rival_runs_as_planned_and_leaves_the_model_as_it_was(measured, method, monkeypatch):
    family, model, profile = measured
    reports = []
    monkeypatch.setattr(host, "_announce", reports.append)
    before = sample(model, family)
    granularity = "branch" if RIVALS[method].needs_branches else "stack"
    patch = OmniCacheModelPatch.execute(model, schedule(method, profile), granularity=granularity).args[0]
    out = sample(patch, family)
    assert torch.isfinite(out).all() and not torch.equal(out, before)
    assert reports[0].notes == {}  # nothing that was to be reused had to run in full
    kinds = [reports[0].step_kinds[step] for step in range(12)]
    assert kinds.count("full") == reports[0].planned_full < 12
    assert torch.equal(sample(model, family), before)


def test_fora_reuses_every_branch_as_a_given_plan_of_all_blocks_would(measured):
    """At 12 steps its steps 0, 2, 5, 8 and 11 are full: step 1 is reused, which a solved plan never does."""
    family, model, _ = measured
    plan = schedule("fora").plan_for(np.linspace(1, 0, 13))
    assert [step for step, reused in enumerate(plan.reused) if not reused] == [0, 2, 5, 8, 11]


def test_a_rival_that_needs_branches_says_so():
    with pytest.raises(ValueError, match="'stack' .* fora keeps branches apart. Set granularity to 'branch'"):
        OmniCacheModelPatch.execute(build("sd3"), schedule("fora"))
