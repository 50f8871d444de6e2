"""Runs that differ from the calibration, with the image demo model and its own profile."""

from dataclasses import replace

import torch

from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule

STEPS = 20


def sample(demo, reports, calm: float = 1.0, **options):
    """calm: how many times less noise the calibration claims to have measured. Returns latents and report."""
    profile = replace(demo.profile, noise=demo.profile.noise / calm**2)
    schedule = Schedule(Budget("reuse ratio", 0.6), profile=profile)
    model = OmniCacheModelPatch.execute(demo.model, schedule, granularity="stack", **options).args[0]
    return demo.latents(model, "euler", STEPS, ["car on yellow"]), reports.pop()


def has_run_of_two(report) -> bool:
    """Whether two steps in a row were reused in the second half: the guard needs some steps to be sure."""
    kinds = [report.step_kinds[step] for step in range(STEPS // 2, STEPS)]
    return any(a == b == "reuse" for a, b in zip(kinds, kinds[1:], strict=False))


def test_a_run_like_the_calibration_goes_as_planned(demo, reports):
    watched, report = sample(demo, reports)
    assert 0.3 < report.drift < 3 and report.drifted_steps == 0
    assert has_run_of_two(report) and report.evaluations_full == 2 * report.planned_full
    unwatched, report = sample(demo, reports, drift_limit=0.0)
    assert report.drift is None and report.as_dict()["drift"] is None
    assert torch.equal(watched, unwatched)


def test_a_noisier_run_reuses_no_two_steps_in_a_row_and_says_so(demo, reports):
    _, report = sample(demo, reports, calm=10.0)
    assert report.drift > 3 and report.drifted_steps > 0
    assert not has_run_of_two(report)
    assert report.evaluations_full == 2 * (report.planned_full + report.drifted_steps)
    assert f"{report.drifted_steps} steps more were computed" in report.summary()
    _, report = sample(demo, reports, calm=10.0, drift_limit=0.0)
    assert has_run_of_two(report) and report.evaluations_full == 2 * report.planned_full
