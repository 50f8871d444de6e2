"""Node: puts a schedule and a correction on a model."""

import logging

import numpy as np
from comfy_api.latest import io

from ..omnicache.correction import Correction
from ..omnicache.families import UnknownModel
from ..omnicache.output_run import OutputRun
from ..omnicache.run import CacheRun
from ..omnicache.schedule import Planner
from ..omnicache.storage import Storage
from ..omnicache.tap import Blocks
from .cached_run import DRIFT_LIMIT, Wishes, cache_run, granularity_of, why_uncached
from .host import Sampling, patched
from .identity import check_fits, prediction_of
from .messages import gain_in_words, tell
from .samplers import remark_on, suited
from .sockets import CATEGORY, CorrectionSocket, ScheduleSocket


class OmniCacheModelPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheModelPatch",
            display_name="OmniCache Model Patch",
            category=CATEGORY,
            description="Makes sampling faster: at the steps the schedule chose, what was kept of the steps "
            "before stands in for the model, or for its blocks. Put it last before the sampler, after LoRAs "
            "and model sampling nodes; use any sampler node.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to speed up: any that ComfyUI samples with.",
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
                    options=["stack", "branch", "auto", "output"],
                    default="auto",
                    optional=True,
                    tooltip="What is kept of computed steps. Auto: output, or what schedule and "
                    "correction need. Output: what the sampler gets, a few latents; the model is not "
                    "called at reused steps. Stack: one tensor for all transformer blocks together. "
                    "Branch: attention, cross-attention and MLP of each block apart, as in the paper, "
                    "which takes tens of times the memory. Most rivals' schedules need branch, and so do "
                    "Curvature Scheduler's parts.",
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
        granularity="auto",
        cache_dtype="compute",
        cache_device="model",
        drift_limit=DRIFT_LIMIT,
    ) -> io.NodeOutput:
        needs_branches = bool(schedule.why_branches)
        usual = correction or schedule.default_correction
        kept = granularity_of(granularity, usual, needs_branches)
        if needs_branches and kept != "branch":
            raise ValueError(
                f"granularity: {granularity!r} keeps all blocks together, but {schedule.why_branches}"
            )
        profile = schedule.profile
        usual.check_has_what_it_needs(profile is not None)
        if profile is not None:
            check_fits(profile, model)
        storage = Storage(cache_dtype, cache_device)

        def make_run(sampling: Sampling, blocks: Blocks | None) -> CacheRun | OutputRun | str:
            prediction = prediction_of(sampling.model)
            own = correction or suited(schedule.default_correction, sampling.sampler, prediction)
            kept = granularity_of(granularity, own, needs_branches, sampling.sampler)
            hindrance = why_uncached(sampling, blocks, kept)
            if hindrance is not None:
                tell(hindrance)
                return hindrance
            remark = remark_on(sampling.sampler, profile.settings.sampler if profile is not None else None)
            if remark is not None:
                tell(remark)
            if profile is not None and (misfit := check_fits(profile, sampling.model)) is not None:
                tell(f"{misfit}; the result may be less exact")
            layout = tuple(place.blocks.branches for place in blocks.places) if blocks is not None else ()
            plan = schedule.plan_for(np.array(sampling.sigmas), layout, prediction)
            if not plan.selections and schedule.wants_reuse:
                tell(f"budget: it leaves all {plan.steps} steps of this run to compute; nothing is reused")
            else:
                tell(gain_in_words(plan, schedule.reuse_cost() if kept != "branch" else None), logging.INFO)
            wishes = Wishes(own, profile, drift_limit if schedule.is_guarded else 0.0, storage)
            return cache_run(sampling, blocks, plan, wishes, kept)

        try:
            patch = patched(
                model, make_run, kept == "branch", schedule.shown_on, needs_blocks=kept in ("stack", "branch")
            )
            return io.NodeOutput(patch)
        except UnknownModel as unknown:
            return _uncached(model, unknown)


def _uncached(model, why: UnknownModel) -> io.NodeOutput:
    tell(str(why))
    return io.NodeOutput(model)
