"""Node: puts a schedule and a correction on a model."""

import logging
import math
from dataclasses import replace

import numpy as np
from comfy_api.latest import io

from ..omnicache.branch_tap import BranchTap
from ..omnicache.correction import Correction, Corrector
from ..omnicache.drift import DriftGuard
from ..omnicache.families import UnknownModel, family_of
from ..omnicache.outlook import Outlook
from ..omnicache.pilots import Pilot
from ..omnicache.plan import EVERYTHING, Plan
from ..omnicache.run import CacheRun
from ..omnicache.schedule import Planner
from ..omnicache.storage import Storage
from ..omnicache.tap import Blocks, StackTap
from .host import Sampling, patched
from .identity import check_fits, prediction_of
from .messages import tell
from .samplers import FREE_RUNNING_SAMPLERS, remark_on, suited
from .sockets import CATEGORY, CorrectionSocket, ScheduleSocket

DRIFT_LIMIT = 3.0


class OmniCacheModelPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheModelPatch",
            display_name="OmniCache Model Patch",
            category=CATEGORY,
            description="Makes a diffusion transformer faster by reusing its blocks' output at the steps "
            "the schedule chose. Put it last before the sampler, after LoRAs and model sampling nodes; use "
            "any sampler node.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to speed up: any diffusion transformer that ComfyUI knows. A U-Net "
                    "(SD 1.5, SDXL) is refused.",
                ),
                ScheduleSocket.Input("schedule", tooltip="From Curvature Scheduler or Rival Schedule."),
                CorrectionSocket.Input(
                    "correction",
                    optional=True,
                    tooltip="From Noise Corrector, which few need. Nothing connected: its defaults, with "
                    "order 1 for samplers that add noise (ancestral, SDE), or what a rival's schedule goes "
                    "with.",
                ),
                io.Combo.Input(
                    "granularity",
                    options=["stack", "branch"],
                    default="stack",
                    optional=True,
                    tooltip="What is kept. Stack: one tensor for all transformer blocks together, fastest "
                    "and smallest. Branch: attention, cross-attention and MLP of each block apart, as in the "
                    "paper, which takes tens of times the memory. Most rivals' schedules need branch, and so "
                    "do Curvature Scheduler's parts.",
                ),
                io.Combo.Input(
                    "cache_dtype",
                    options=["compute", "bf16", "fp8"],
                    default="compute",
                    optional=True,
                    tooltip="Number format of the cache. Compute: as the model computes, exact. bf16 and fp8 "
                    "(one byte a number) take less memory and add a small rounding error.",
                ),
                io.Combo.Input(
                    "cache_device",
                    options=["model", "cpu"],
                    default="model",
                    optional=True,
                    tooltip="Where the cache is kept. Model: on the model's device. CPU: in main memory, "
                    "which frees VRAM and costs a copy at each step; worth it with granularity branch.",
                ),
                io.Float.Input(
                    "drift_limit",
                    default=DRIFT_LIMIT,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="Only with a profile. If reuse disturbs this run more than so many times what "
                    "was calibrated (another LoRA, size or kind of prompt), no two steps in a row are reused "
                    "until that has passed, and the log says so. 0: not watched.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "patched",
                    display_name="model",
                    tooltip="Goes to the sampler. The model that came in stays as it was. After each run "
                    "the log says what was computed and what reused.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        schedule: Planner,
        correction: Correction | None = None,
        granularity="stack",
        cache_dtype="compute",
        cache_device="model",
        drift_limit=DRIFT_LIMIT,
    ) -> io.NodeOutput:
        with_branches = granularity == "branch"
        if schedule.why_branches and not with_branches:
            raise ValueError(f"granularity: 'stack' keeps all blocks together, but {schedule.why_branches}")
        try:
            family_of(model.model.diffusion_model)
        except UnknownModel as unknown:
            return _uncached(model, unknown)
        profile = schedule.profile
        (correction or schedule.default_correction).check_has_what_it_needs(profile is not None)
        if profile is not None:
            check_fits(profile, model)

        def make_run(sampling: Sampling, blocks: Blocks) -> CacheRun | str:
            remark = remark_on(sampling.sampler, profile.settings.sampler if profile is not None else None)
            if remark is not None:
                tell(remark)
            if sampling.sampler in FREE_RUNNING_SAMPLERS:
                return remark
            if profile is not None:
                remark = check_fits(profile, sampling.model)
                if remark is not None:
                    tell(f"{remark}; the result may be less exact")
            sigmas = np.array(sampling.sigmas)
            outlook = Outlook(profile, sigmas) if profile is not None else None
            plan = schedule.plan_for(sigmas, tuple(place.blocks.branches for place in blocks.places))
            if not plan.selections and schedule.wants_reuse:
                tell(f"budget: it leaves all {plan.steps} steps of this run to compute; nothing is reused")
            else:
                tell(gain_in_words(plan, None if with_branches else schedule.reuse_cost()), logging.INFO)
            return cache_run(
                sampling,
                blocks,
                plan,
                correction or suited(schedule.default_correction, sampling.sampler),
                outlook,
                drift_limit if schedule.is_guarded else 0.0,
                with_branches,
                Storage(cache_dtype, cache_device),
            )

        try:
            return io.NodeOutput(patched(model, make_run, with_branches, schedule.shown_on))
        except UnknownModel as replaced:
            return _uncached(model, replaced)


def _uncached(model, why: UnknownModel) -> io.NodeOutput:
    tell(str(why))
    return io.NodeOutput(model)


def gain_in_words(plan: Plan | Pilot, reuse_cost: float | None) -> str:
    """What to expect of a run. reuse_cost: time of a reuse evaluation over that of a full one, if it is
    known."""
    if plan.full is None:
        return f"decides at each of {plan.steps} steps whether to compute it"
    words = f"computes {plan.full} of {plan.steps} steps"
    if reuse_cost is None or plan.selections != {EVERYTHING}:
        return words
    return f"{words}, about {tenths(plan.speedup(reuse_cost))}x faster"


def tenths(factor: float) -> str:
    """Rounded down: it is a promise."""
    return f"{math.floor(factor * 10 + 1e-9) / 10:.1f}"


def cache_run(
    sampling: Sampling,
    blocks: Blocks,
    plan: Plan | Pilot,
    correction: Correction,
    outlook: Outlook | None,
    drift_limit: float = DRIFT_LIMIT,
    with_branches: bool = False,
    storage: Storage | None = None,
) -> CacheRun:
    """The run that follows a plan. outlook: what a profile predicts for it, if there is one. drift_limit: 0
    for a run that is not watched."""
    switch = sampling.model.get_model_object("model_sampling").percent_to_sigma(correction.switch_point)
    tell_size = blocks.on_size
    storage = storage or Storage()
    of_newest = 1 + (correction.generations - 1) * storage.share_of_change
    blocks = replace(blocks, on_size=lambda size: tell_size(round(size * of_newest)))
    return CacheRun(
        plan,
        Corrector(correction, sampling.sigmas, outlook, float(switch), prediction_of(sampling.model)),
        BranchTap(blocks, plan.selections) if with_branches else StackTap(blocks),
        storage,
        DriftGuard(outlook, drift_limit) if outlook is not None and drift_limit > 0 else None,
    )
