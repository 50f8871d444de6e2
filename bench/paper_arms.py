"""Samples what bench/paper.py asks for through the real host and measures it. Call in_process.load_host() and
load_pack() first."""

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

import data
import flops
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget, Constraints, solve
from comfyui_omnicache.omnicache.schedule import Schedule
from comfyui_omnicache.omnicache.trajectory import geometry, menger_curvature, turning_angle
from demo_model import DemoModel
from given_plan import GivenPlan
from judging import as_input, classes_of, judge_of, per_sample
from paper_measures import changes, drift, extents, fine_energy, held, nearest, noise_of, part_of_run
from paper_tasks import FOLDER, MODELS, Arm, Statistics, Trajectories, budgets
from prompts import drawn_prompts
from quality_tasks import FOLDER as QUALITY
from quality_tasks import TOGETHER

FIRST_SEED = 5_000  # of the noise; the profiles were calibrated with others
PROMPTS = 40  # seed of the prompts
ONE_PROMPT = {"image": "cat on green", "video": "fox bouncing on teal"}
PAPER_FILTER = "low-high"
DATA_DRAWS = 64
SPEED_ROUNDS, SPEED_SAMPLES = 3, {"image": 8, "video": 1}


@dataclass(frozen=True)
class Sampled:
    """states: (steps + 1, samples, numbers), in the model's scale. denoised: (steps, samples, numbers).
    pictures: (samples, frames, height, width, 3) in 0..1. seconds: CPU seconds of sampling."""

    states: np.ndarray
    denoised: np.ndarray
    pictures: np.ndarray
    seconds: float


@cache
def demo_of(model: str) -> DemoModel:
    setting = MODELS[model]
    return DemoModel(setting.name)


def sample(model: str, patched, steps: int, prompts: list[str], cfg: float) -> Sampled:
    demo = demo_of(model)
    parts = [
        _sample(demo, patched, steps, prompts[first : first + TOGETHER], cfg, FIRST_SEED + first)
        for first in range(0, len(prompts), TOGETHER)
    ]
    joined = (
        np.concatenate([getattr(part, name) for part in parts], axis=axis)
        for name, axis in (("states", 1), ("denoised", 1), ("pictures", 0))
    )
    return Sampled(*joined, sum(part.seconds for part in parts))


def _sample(demo: DemoModel, patched, steps: int, prompts: list[str], cfg: float, seed: int) -> Sampled:
    states, denoised = [], []

    def record(step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        states.append(x.flatten(1).float().clone())
        denoised.append(x0.flatten(1).float().clone())

    started = time.process_time()
    latents = demo.latents(patched, "euler", steps, prompts, cfg, seed, callback=record)
    seconds = time.process_time() - started
    # The host hands latents out in the scale of its own autoencoders; the states are in the model's.
    states.append(demo.model.model.process_latent_in(latents).flatten(1).float())
    pictures = demo.decode(latents).numpy()
    return Sampled(
        torch.stack(states).numpy(),
        torch.stack(denoised).numpy(),
        pictures.reshape(len(prompts), -1, *pictures.shape[1:]),
        seconds,
    )


def measure(task: Trajectories | Statistics | Arm) -> dict:
    """A row."""
    measures = {Trajectories: measure_trajectories, Statistics: measure_statistics, Arm: measure_arm}
    return measures[type(task)](task)


def measure_trajectories(task: Trajectories) -> dict:
    """Geometry of uncached runs, and how much their outputs change from step to step."""
    setting, demo = MODELS[task.model], demo_of(task.model)
    prompts = drawn_prompts(setting.kind, PROMPTS, task.samples)
    if task.group == "same prompt":
        prompts = [ONE_PROMPT[setting.kind]] * task.samples
    cfg = 1.0 if task.group == "no guidance" else setting.cfg
    found = sample(task.model, demo.model, setting.steps, prompts, cfg)
    sigmas = demo.sigmas(setting.steps).astype(np.float64)
    grams = [states @ states.T for states in found.states.astype(np.float64).transpose(1, 0, 2)]
    shapes = [geometry(gram) for gram in grams]
    shares = [held(gram, shape.explained) for gram, shape in zip(grams, shapes, strict=True)]
    points = np.stack([shape.coordinates for shape in shapes])  # (samples, states, 3)
    velocity = (found.states[:-1] - found.denoised) / sigmas[:-1, None, None]
    noise = noise_of(found.states[:-1], found.denoised, sigmas[:-1])
    return {
        "sigmas": sigmas.tolist(),
        "axis": [share.axis for share in shares],
        "plane": [share.plane for share in shares],
        "three": [share.three for share in shares],
        "extents": [extents(each).tolist() for each in points],
        "coordinates": np.round(points, 6).tolist(),
        "turning": [turning_angle(each)[1:-1].tolist() for each in points],
        "menger": [menger_curvature(each)[1:-1].tolist() for each in points],
        "spacing": np.linalg.norm(np.diff(found.states, axis=0), axis=-1).mean(1).tolist(),
        "output_size": np.linalg.norm(velocity, axis=-1).mean(1).tolist(),
        "velocity_change": changes(velocity)[1:].tolist(),
        "noise_change": changes(noise)[1:].tolist(),
    }


def measure_arm(arm: Arm) -> dict:
    """A row: distances to the uncached run at each step and at the end, quality, and CPU seconds."""
    setting, demo = MODELS[arm.model], demo_of(arm.model)
    prompts = drawn_prompts(setting.kind, PROMPTS, arm.samples)
    steps = arm.sampled_steps
    patched, reused = demo.model, []
    if arm.plan not in ("uncached", "fewer"):
        schedule = schedule_of(arm)
        reused = np.flatnonzero(schedule.plan_for(demo.sigmas(steps)).reused).tolist()
        assert len(reused) == arm.reused, f"{arm.plan}: {len(reused)} reused steps instead of {arm.reused}"
        patched = OmniCacheModelPatch.execute(demo.model, schedule, correction_of(arm)).args[0]
    found = sample(arm.model, patched, steps, prompts, setting.cfg)
    path = FOLDER / f"{arm.model}_{arm.samples}.npz"
    if arm.plan == "uncached":
        np.savez(path, states=found.states, pictures=found.pictures)
    plain = np.load(path)
    row = {"seconds": found.seconds, "reused_steps": reused}
    if steps == setting.steps:
        away, share = drift(found.states.astype(np.float64), plain["states"].astype(np.float64))
        row |= {"away": away.tolist(), "share": share.tolist()}
    return row | quality(arm, prompts, found.pictures, plain["pictures"])


def quality(arm: Arm, prompts: list[str], pictures: np.ndarray, plain: np.ndarray) -> dict:
    """For each sample, mean over its frames. psnr, ssim, distance: to the uncached one. confidence: of the
    classifier in what was asked. nearest: distance to the nearest of the data's features. fine: energy of
    fine detail. Keeps the features of all frames beside the rows."""
    kind = MODELS[arm.model].kind
    net, samples = judge_of(kind), len(pictures)
    with torch.no_grad():
        features = net[:-1](as_input(pictures))
        chances = net[-1](features).softmax(1).view(samples, -1, net[-1].out_features).mean(1).numpy()
    features = features.numpy()
    np.save(FOLDER / f"{arm.key}.features.npy", features)
    known = np.load(QUALITY / f"data_{kind}.npy")
    asked = np.array(classes_of(kind, prompts))
    return {
        **per_sample(kind, pictures, plain),
        "hits": (chances.argmax(1) == asked).astype(int).tolist(),
        "confidence": chances[np.arange(samples), asked].tolist(),
        "nearest": nearest(features.astype(np.float64), known.astype(np.float64))
        .reshape(samples, -1)
        .mean(1)
        .tolist(),
        "fine": [float(fine_energy(mine).mean()) for mine in pictures],
    }


def correction_of(arm: Arm) -> Correction:
    if arm.mode == "default":
        return Correction()
    if arm.mode == "paper+filter":
        return Correction("paper", PAPER_FILTER)
    return Correction(arm.mode)


def schedule_of(arm: Arm) -> Schedule | GivenPlan:
    profile, steps = demo_of(arm.model).profile, MODELS[arm.model].steps
    if arm.plan in ("curvature", "even", "reach"):
        budget = Budget("full steps", steps - arm.reused)
        return Schedule(budget, arm.plan, profile=profile)
    name, _, number = arm.plan.partition("-")
    if name in ("early", "late", "spread"):
        reused = part_of_run(name, int(number), steps)
    elif name == "single":
        reused = [int(number)]
    else:
        costs = {
            "curviest": lambda: -profile.turning_mean(),
            "menger": lambda: profile.menger,
            "random": lambda: np.random.default_rng(int(number)).random(steps),
        }[name]()
        limits = Constraints(protect_last=1)
        plan = solve(steps, arm.reused, limits, lambda step, *_: float(costs[step]))
        return GivenPlan(plan.reused, profile)
    return GivenPlan(tuple(step in reused for step in range(steps)), profile)


def measure_statistics(task: Statistics) -> dict:
    measures = {"noise": noise_statistics, "data": data_statistics, "speed": speed_statistics}
    return measures[task.name](task.model)


def speed_statistics(model: str) -> dict:
    """CPU time and floating-point operations of uncached over those of paper mode, at each of the paper's
    budgets. Times are medians of rounds in which all run in turn, so that other work on the machine meets
    all alike."""
    setting, demo = MODELS[model], demo_of(model)
    arms = [Arm(model, "curvature", reused, "paper+filter", 0) for reused in budgets(model)]
    models = [demo.model] + [
        OmniCacheModelPatch.execute(demo.model, schedule_of(arm), correction_of(arm)).args[0] for arm in arms
    ]
    prompts = drawn_prompts(setting.kind, PROMPTS, SPEED_SAMPLES[setting.kind])
    seconds = [
        [sample(model, patched, setting.steps, prompts, setting.cfg).seconds for patched in models]
        for _ in range(SPEED_ROUNDS)
    ]
    operations = []
    for patched in models:
        with flops.counter() as counter:
            sample(model, patched, setting.steps, prompts[:1], setting.cfg)
        operations.append(counter.get_total_flops())
    return {
        "time": [float(np.median([each[0] / each[i] for each in seconds])) for i in range(1, len(models))],
        "operations": [operations[0] / each for each in operations[1:]],
    }


def data_statistics(model: str) -> dict:
    """Energy of fine detail of draws of the data."""
    kind = MODELS[model].kind
    pictures, _ = data.batch(kind, PROMPTS, 0, DATA_DRAWS)
    return {"fine": float(fine_energy(pictures.reshape(-1, *pictures.shape[-3:]) / 255).mean())}


def noise_statistics(model: str) -> dict:
    """What the shipped profile says of the caches' noise, at the steps that are not its ends."""
    profile = demo_of(model).profile

    def listed(curve: np.ndarray) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in curve]

    return {
        "trajectories": profile.trajectories,
        "sigmas": profile.sigmas.tolist(),
        "turning": profile.turning_mean().tolist(),
        "menger": (profile.menger / profile.trajectories).tolist(),
        "gamma": listed(profile.gamma(1, 1)),
        "cosine": listed(profile.correlation(1, 1)),
        "relative_noise": listed(profile.relative_noise(1)),
        **{
            f"gamma_{age}_{source}": listed(profile.gamma(age, source))
            for age, source in ((1, 2), (1, 3), (2, 3))
        },
    }
