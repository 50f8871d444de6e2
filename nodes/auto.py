"""Node: everything in one."""

import logging

import numpy as np
from comfy_api.latest import io

from ..omnicache.correction import Correction
from ..omnicache.families import UnknownModel
from ..omnicache.output_run import OutputRun
from ..omnicache.plan import MIN_STEPS, Budget, Constraints, Plan
from ..omnicache.run import CacheRun
from ..omnicache.schedule import TYPICAL_REUSE_COST, Schedule
from ..omnicache.tap import Blocks
from .cached_run import Wishes, cache_run, granularity_of, why_uncached
from .host import MakeRun, Sampling, patched
from .identity import prediction_of
from .messages import gain_in_words, log, tell, tenths
from .samplers import remark_on, suited
from .sockets import CATEGORY

# Share of the steps that is reused.
RATIOS = {"most faithful": 0.35, "faithful": 0.5, "fast": 0.6, "fastest": 0.7}
DEFAULT = "faithful"
# With fewer, as many plain steps come as near (docs/experiments.md, "Short runs").
LEAST_COMPUTED = 5


def _option(words: str) -> str:
    return f"{words} (about {tenths(1 / (1 - RATIOS[words] * (1 - TYPICAL_REUSE_COST)))}x)"


# Saved workflows hold these texts.
BUDGETS = {_option(words): ratio for words, ratio in RATIOS.items()}


class OmniCacheAuto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheAuto",
            display_name="OmniCache Auto",
            category=CATEGORY,
            description="Makes sampling faster, with nothing to set up: put it between the model (after "
            "LoRAs and model sampling nodes) and any sampler. Some steps are not computed but forecast "
            "from those before, and what a forecast did wrong is put right at the next computed step.",
            inputs=[
                io.Model.Input("model", tooltip="The model to speed up: any that ComfyUI samples with."),
                io.Combo.Input(
                    "budget",
                    options=list(BUDGETS),
                    default=_option(DEFAULT),
                    tooltip="From quality to speed: how near the picture stays to the one without OmniCache, "
                    "and how much faster it comes.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "patched",
                    display_name="model",
                    tooltip="Goes to the sampler. At each run this node says how many steps are computed.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # as in Curvature Scheduler: a copy speaks on itself
        )

    @classmethod
    def execute(cls, model, budget) -> io.NodeOutput:
        node_id = cls.hidden.unique_id if cls.hidden is not None else None
        make_run = _run_maker(BUDGETS[budget], node_id)
        try:
            return io.NodeOutput(patched(model, make_run, needs_blocks=False))
        except UnknownModel as unknown:
            tell(str(unknown), node_id=node_id)
            return io.NodeOutput(model)


def _run_maker(ratio: float, node_id: str | None) -> MakeRun:
    def say(text: str) -> None:
        tell(text, logging.INFO, node_id)

    def make_run(sampling: Sampling, blocks: Blocks | None) -> CacheRun | OutputRun | str:
        try:
            prediction = prediction_of(sampling.model)
            correction = suited(Correction(), sampling.sampler, prediction)
            granularity = granularity_of("auto", correction, needs_branches=False, sampler=sampling.sampler)
            hindrance = _too_short(sampling) or why_uncached(sampling, blocks, granularity)
            if hindrance is not None:
                say(hindrance)
                return hindrance
            plan = _plan(sampling.sigmas, ratio, prediction)
            run = cache_run(sampling, blocks, plan, Wishes(correction), granularity)
        # The user asked for a picture, and has one without the pack.
        except Exception as error:
            log.debug("OmniCache Auto", exc_info=error)
            hindrance = f"not cached, this run is at full quality: {error}"
            say(hindrance)
            return hindrance
        remark = remark_on(sampling.sampler, None)
        gain = gain_in_words(plan, TYPICAL_REUSE_COST)
        say(gain if remark is None else f"{gain}; {remark}")
        return run

    return make_run


def _too_short(sampling: Sampling) -> str | None:
    """Why nothing can be reused in a run of so few steps, or None."""
    if sampling.steps < MIN_STEPS:
        return (
            f"steps: {sampling.steps} are too few to reuse any; at least {MIN_STEPS} are needed, so this "
            "run is at full quality"
        )
    return None


def _plan(sigmas: list[float], ratio: float, prediction: str) -> Plan:
    """Reuses the share of the steps, or as many as is good where that is too much for a short run."""
    steps, room = len(sigmas) - 1, Constraints().room
    reused = min(round(ratio * steps), steps - LEAST_COMPUTED)
    reused = min(reused, room.with_longest_run(steps, reused).most_reused(steps))
    return Schedule(Budget("full steps", steps - reused)).plan_for(np.array(sigmas), prediction=prediction)
