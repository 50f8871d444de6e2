"""What a case of bench/studies.py asks for, in the pack's own classes: its model, schedule, correction and
profile. Call in_process.load_host() and load_pack() first."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from comfyui_omnicache.nodes.trajectory_calibrator import TrajectoryCalibrator
from comfyui_omnicache.omnicache import calibration, correction
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget, Constraints
from comfyui_omnicache.omnicache.profile import Profile
from comfyui_omnicache.omnicache.schedule import WITHOUT_PROFILE, Schedule
from demo_model import DemoModel, demo_nodes
from studies_cases import CALIBRATION_PROMPTS, CALIBRATION_SEED, CFG, FOLDER, PROMPTS, SEED, Calibration, Case


@cache
def demo_model(kind: str) -> DemoModel:
    return DemoModel(kind)


def schedule_of(case: Case) -> Schedule:
    limits = Constraints(case.max_consecutive, case.protect_first, case.protect_last)
    profile = None if case.cost in WITHOUT_PROFILE else profile_of(case.model, case.profile)
    return Schedule(Budget("reuse ratio", case.reuse), case.cost, limits, profile)


def correction_of(case: Case) -> Correction:
    return Correction(case.mode, case.filter, case.switch_point, case.cutoff, order=case.order)


@cache
def profile_of(kind: str, made: Calibration | None) -> Profile:
    """Calibrated once and kept; None is the one that comes with the pack."""
    if made is None:
        return demo_model(kind).profile
    path = FOLDER / f"profile_{kind}_{name_of(made)}.json"
    if not path.exists():
        print(f"calibrating: {kind}, {made}", flush=True)
        with bands_over(made.over_time):
            path.write_text(calibrated(demo_model(kind), made).to_json(), encoding="utf-8")
    return read(path)


def read(path: Path) -> Profile:
    return Profile.from_json(path.read_text(encoding="utf-8"), path.name)


def calibrated(demo: DemoModel, made: Calibration) -> Profile:
    is_own = made.prompt < 0
    prompts = PROMPTS[demo.kind] if is_own else [CALIBRATION_PROMPTS[demo.kind][made.prompt]]
    empty = {"samples": torch.zeros(len(prompts), *(made.shape or demo_nodes.LATENT_SHAPE[demo.kind]))}
    # The prompts differ in their noise too.
    seed = SEED if is_own else CALIBRATION_SEED + 10 * made.prompt
    with torch.inference_mode():
        return TrajectoryCalibrator.execute(
            demo.model, demo.conditioning(prompts), demo.conditioning([""]), empty, seed, made.steps, CFG,
            made.sampler, made.scheduler, 1.0, made.samples, "",
        ).args[0]  # fmt: skip


@contextmanager
def bands_over(time: bool) -> Iterator[None]:
    """Takes the frequencies of a video over time too, in place of each frame's own."""
    modules = (calibration, correction)
    before = calibration.grid_of
    for module in modules if time else ():
        module.grid_of = lambda shape: tuple(shape[2:])
    try:
        yield
    finally:
        for module in modules:
            module.grid_of = before


def name_of(thing: Case | Calibration) -> str:
    """Names its file."""
    return hashlib.sha256(repr(asdict(thing)).encode()).hexdigest()[:12]
