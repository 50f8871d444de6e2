"""Puts a cached sampling run together: what the nodes ask for, in the engine's parts."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..omnicache.branch_tap import BranchTap
from ..omnicache.correction import FORECASTS, Correction, Corrector
from ..omnicache.drift import DriftGuard
from ..omnicache.euler_notice import EulerNotice
from ..omnicache.noise_axis import FORECAST_SMALLEST, forecast_axis, log_snr
from ..omnicache.outlook import Outlook
from ..omnicache.output_run import OutputRun
from ..omnicache.pilots import Pilot
from ..omnicache.plan import Plan
from ..omnicache.profile import Profile
from ..omnicache.repay import Repay
from ..omnicache.report import Granularity
from ..omnicache.response import Response
from ..omnicache.run import CacheRun
from ..omnicache.storage import Storage
from ..omnicache.tap import Blocks, StackTap
from .host import Sampling
from .identity import prediction_of
from .sampler_response import is_of_the_host, response_of
from .samplers import FREE_RUNNING_SAMPLERS, amplifies, draws_noise, reads_guidance, remark_on

DRIFT_LIMIT = 3.0

Asked = Literal["auto", "stack", "branch", "output"]


@dataclass(frozen=True)
class Wishes:
    """How a run is to be cached. drift_limit: 0 for a run that is not watched."""

    correction: Correction
    profile: Profile | None = None
    drift_limit: float = DRIFT_LIMIT
    storage: Storage = field(default_factory=Storage)


def granularity_of(
    asked: Asked, correction: Correction, needs_branches: bool, sampler: str = ""
) -> Granularity:
    """What is kept. Auto: the outputs of the model, wherever these can be forecast; else the whole stack of
    blocks, or its branches where the schedule needs them. Raises ValueError for what cannot be."""
    is_above = correction.mode in FORECASTS
    if asked == "output" and not is_above:
        raise ValueError(
            "granularity: 'output' knows the model's outputs only, and the correction's mode "
            f"{correction.mode!r} needs its blocks. Set granularity to 'auto' or 'stack', or mode to "
            "'forecast'."
        )
    if asked != "auto":
        return asked
    if needs_branches:
        return "branch"
    # New noise at each step is no part of a forecast; the blocks see it (docs/samplers.md).
    suits = not (reads_guidance(sampler) or draws_noise(sampler) or amplifies(sampler))
    return "output" if is_above and suits else "stack"


def why_uncached(sampling: Sampling, blocks: Blocks | None, granularity: Granularity) -> str | None:
    """Why nothing can be reused in such a run, or None."""
    if sampling.sampler in FREE_RUNNING_SAMPLERS:
        return remark_on(sampling.sampler, None)
    if granularity != "output" and blocks is None:
        return (
            f"sampler: {sampling.sampler} needs the blocks of the model, and those of "
            f"{type(sampling.model.model.diffusion_model).__name__} are not known to this pack, so "
            "this run is computed in full. Take a sampler that adds no noise, for example euler or dpmpp_2m."
        )
    return None


def cache_run(
    sampling: Sampling, blocks: Blocks | None, plan: Plan | Pilot, wishes: Wishes, granularity: Granularity
) -> CacheRun | OutputRun:
    """The run that follows a plan. blocks: needed unless granularity is "output"."""
    correction = wishes.correction
    outlook = Outlook(wishes.profile, np.array(sampling.sigmas)) if wishes.profile is not None else None
    switch = sampling.model.get_model_object("model_sampling").percent_to_sigma(correction.switch_point)
    prediction = prediction_of(sampling.model)
    of_outputs = log_snr(sampling.sigmas, prediction, FORECAST_SMALLEST)
    axis = of_outputs if granularity == "output" else forecast_axis(sampling.sigmas, prediction)
    corrector = Corrector(correction, sampling.sigmas, outlook, float(switch), axis.tolist())
    repay = _repay(sampling, plan, corrector, of_outputs.tolist())
    if granularity == "output":
        return OutputRun(plan, corrector, repay)
    of_newest = 1 + (correction.generations - 1) * wishes.storage.share_of_change
    tell_size = blocks.on_size
    blocks = replace(blocks, on_size=lambda size: tell_size(round(size * of_newest)))
    return CacheRun(
        plan,
        corrector,
        BranchTap(blocks, plan.selections) if granularity == "branch" else StackTap(blocks),
        wishes.storage,
        DriftGuard(outlook, wishes.drift_limit) if outlook is not None and wishes.drift_limit > 0 else None,
        repay,
    )


def _repay(sampling: Sampling, plan: Plan | Pilot, corrector: Corrector, axis: list[float]) -> Repay | None:
    """None where nothing is to be repaid, or the sampler gives no way to."""
    correction = corrector.correction
    if not (correction.repays and plan.selections):
        return None
    sigmas, sampler = sampling.sigmas, sampling.host_sampler
    if is_of_the_host(sampler):
        response, notice = response_of(sampler, sigmas, sampling.model), None
    else:
        response, notice = Response.of_euler(sigmas), EulerNotice(sigmas)
    # Behind an inpainting mask what is evaluated is a copy of the state.
    if response is None or (sampling.is_masked and response.held == "evaluated"):
        return None
    return Repay(axis, sigmas, response, correction.repay, notice, corrector.filtered)
