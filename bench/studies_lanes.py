"""Correction before guidance, of each lane, and after it: the study "guidance" of bench/studies.py. Call
in_process.load_host() and load_pack() first."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from comfyui_omnicache.nodes import host
from comfyui_omnicache.nodes.identity import identity_of, prediction_of
from comfyui_omnicache.omnicache.calibration import CalibrationRun
from comfyui_omnicache.omnicache.correction import Correction, Corrector, Gamma
from comfyui_omnicache.omnicache.noise_axis import forecast_axis
from comfyui_omnicache.omnicache.outlook import Outlook
from comfyui_omnicache.omnicache.plan import Plan
from comfyui_omnicache.omnicache.profile import Profile, Settings
from comfyui_omnicache.omnicache.run import CacheRun, Call
from comfyui_omnicache.omnicache.schedule import Schedule
from comfyui_omnicache.omnicache.spectrum import BandProducts, grid_of
from comfyui_omnicache.omnicache.tap import StackTap
from demo_model import DemoModel, demo_nodes
from studies_cases import CALIBRATION_PROMPTS, CALIBRATION_SEED, CFG, FOLDER, Case
from studies_setup import correction_of, read

Part = Literal["positive", "negative", "guided"]


def guided(positive: Tensor, negative: Tensor) -> Tensor:
    """What guidance makes of the two lanes; linear, so noise goes through it as outputs do."""
    return negative + CFG * (positive - negative)


def lanes_of(rows: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """(positive, negative): the halves of what the host evaluated together, in either order."""
    first, second = rows.chunk(2)
    return (first, second) if call.rows[0][1] == 0 else (second, first)


class PartProducts(BandProducts):
    """Inner products of one lane alone, or of what guidance makes of both."""

    def __init__(self, call: Call, part: Part) -> None:
        super().__init__(grid_of(call.x.shape))
        self._call, self._part = call, part

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return super().between(self._chosen(a), self._chosen(b))

    def _chosen(self, rows: Tensor) -> Tensor:
        positive, negative = lanes_of(rows, self._call)
        return {"positive": positive, "negative": negative, "guided": guided(positive, negative)}[self._part]


class PartCalibration(CalibrationRun):
    """Measures the noise of one part alone."""

    def __init__(self, steps: int, tap: StackTap, part: Part) -> None:
        super().__init__(steps, tap)
        self._part = part

    def evaluate(self, call: Call) -> Tensor:
        self._products = PartProducts(call, self._part)
        return super().evaluate(call)


def profile_of_part(demo: DemoModel, steps: int, part: Part) -> Profile:
    """Calibrated once and kept, as the profile of one prompt for all lanes is."""
    path = FOLDER / f"profile_{demo.kind}_{part}_{steps}.json"
    if not path.exists():
        made = []

        def make_run(sampling: host.Sampling, blocks) -> CalibrationRun:
            made.append((PartCalibration(sampling.steps, StackTap(blocks), part), sampling.sigmas))
            return made[0][0]

        prompts = CALIBRATION_PROMPTS[demo.kind][:1]
        demo.latents(host.patched(demo.model, make_run), "euler", steps, prompts, CFG, CALIBRATION_SEED)
        run, sigmas = made[0]
        settings = Settings(demo_nodes.LATENT_SHAPE[demo.kind], "euler", "simple", CFG, 1.0)
        profile = run.profile(identity_of(demo.model), settings, sigmas, sigmas[:-1], {})
        path.write_text(profile.to_json(), encoding="utf-8")
    return read(path)


class OwnGammas(Corrector):
    """Gives each lane the gamma that its own noise has."""

    def __init__(self, lanes: dict[int, Corrector], *arguments) -> None:
        """lanes: by side, 0 the positive."""
        super().__init__(*arguments)
        self._lanes = lanes
        self.sides: tuple[int, ...] = ()

    def gamma(self, step: int, cached_step: int, source_step: int) -> Gamma:
        self._gammas = [self._lanes[side].gamma(step, cached_step, source_step) for side in self.sides]
        return self._gammas[0]

    def apply(self, denoised: Tensor, noise: Tensor, gamma: Gamma, sigma: Tensor, step: int) -> Tensor:
        lanes = zip(denoised.chunk(2), noise.chunk(2), self._gammas, sigma.chunk(2), strict=True)
        return torch.cat([super(OwnGammas, self).apply(*lane, step) for lane in lanes])


class Deferred(Corrector):
    """Keeps what it would add, for after guidance."""

    added: Tensor | None = None

    def apply(self, denoised: Tensor, noise: Tensor, gamma: Gamma, sigma: Tensor, step: int) -> Tensor:
        self.added = super().apply(torch.zeros_like(denoised), noise, gamma, sigma, step)
        return denoised


class LanesRun(CacheRun):
    """Lets the corrector know which lanes the host evaluates together."""

    last_call: Call | None = None

    def evaluate(self, call: Call) -> Tensor:
        self.last_call = call
        if isinstance(self._corrector, OwnGammas):
            self._corrector.sides = tuple(row[1] for row in call.rows)
        return super().evaluate(call)


def patched(demo: DemoModel, case: Case, schedule: Schedule, plan: Plan):
    """The demo model with the correction that case.lanes names."""
    if case.lanes == "guided output":
        return with_forecast_output(demo, case, plan)
    correction = correction_of(case)
    runs: list[LanesRun] = []

    def corrector(
        sigmas: list[float], profile: Profile, kind: type[Corrector] = Corrector, *first
    ) -> Corrector:
        outlook = Outlook(profile, np.array(sigmas))
        axis = forecast_axis(sigmas, prediction_of(demo.model))
        return kind(*first, correction, sigmas, outlook, 0.0, axis)

    def make_run(sampling: host.Sampling, blocks) -> CacheRun:
        sigmas = sampling.sigmas
        if case.lanes == "each its own gamma":
            parts = {0: "positive", 1: "negative"}
            lanes = {
                side: corrector(sigmas, profile_of_part(demo, case.profile.steps, part))
                for side, part in parts.items()
            }
            made = corrector(sigmas, schedule.profile, OwnGammas, lanes)
        elif case.lanes == "after guidance":
            made = corrector(sigmas, schedule.profile, Deferred)
        else:
            made = corrector(sigmas, profile_of_part(demo, case.profile.steps, "guided"))
        runs.append(LanesRun(plan, made, StackTap(blocks)))
        return runs[-1]

    for part in ("positive", "negative", "guided"):  # before a run is under way
        profile_of_part(demo, case.profile.steps, part)
    model = host.patched(demo.model, make_run)
    if case.lanes == "after guidance":
        model.set_model_sampler_post_cfg_function(lambda args: add_deferred(args, runs[-1]))
    return model


def add_deferred(args: dict, run: LanesRun) -> Tensor:
    deferred = run._corrector
    added, deferred.added = deferred.added, None
    if added is None:
        return args["denoised"]
    return args["denoised"] + guided(*lanes_of(added, run.last_call))


def with_forecast_output(demo: DemoModel, case: Case, plan: Plan):
    """The model whose guided output is continued at reused steps, as the default continues what is cached of
    each lane: by the same weights."""
    sigmas = demo.sigmas(case.steps).tolist()
    axis = forecast_axis(sigmas, prediction_of(demo.model))
    weights = Corrector(Correction(order=case.order), sigmas, None, 0.0, axis).weights
    model = demo.model.clone()
    model.set_model_sampler_post_cfg_function(forecast_output(plan, case.order, weights))
    return model


def forecast_output(plan: Plan, order: int, weights: Callable) -> Callable[[dict], Tensor]:
    """A function for the host to call after guidance, once a step."""
    step, known, outputs = -1, [], []

    def after_guidance(args: dict) -> Tensor:
        nonlocal step
        step += 1
        x, sigma = args["input"], args["sigma"].view(-1, *(1,) * (args["input"].ndim - 1))
        if not plan.is_reused(step):
            known.insert(0, step)
            outputs.insert(0, (x - args["denoised"]) / sigma)
            del known[order + 1 :], outputs[order + 1 :]
            return args["denoised"]
        shares = weights(step, tuple(known))
        return x - sigma * sum(share * output for share, output in zip(shares, outputs, strict=False))

    return after_guidance
