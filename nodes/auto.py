"""Node: everything in one. The first run of a setting calibrates on the way, the next ones are cached."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from comfy_api.latest import io

from ..omnicache.calibration import CalibrationRun
from ..omnicache.correction import Correction
from ..omnicache.families import UnknownModel
from ..omnicache.outlook import Outlook
from ..omnicache.plan import MIN_STEPS, Budget, Constraints, Plan
from ..omnicache.profile import Profile, Settings
from ..omnicache.report import RunReport
from ..omnicache.run import CacheRun
from ..omnicache.schedule import TYPICAL_REUSE_COST, Schedule, measured_reuse_cost
from ..omnicache.tap import Blocks, StackTap
from . import library
from .auto_profiles import Setting, Shelf
from .calibration_on_the_way import CalibrationOnTheWay
from .host import MakeRun, OnEnd, Sampling, patched
from .identity import timesteps_of
from .messages import log, tell
from .model_patch import cache_run, gain_in_words, tenths
from .samplers import FREE_RUNNING_SAMPLERS, remark_on, suited
from .sockets import CATEGORY

# Share of the steps that is reused.
RATIOS = {"most faithful": 0.35, "faithful": 0.5, "fast": 0.6, "fastest": 0.7}
DEFAULT = "faithful"
# With fewer, as many plain steps come as near (docs/experiments.md, "Short runs").
LEAST_COMPUTED = 5

_shelf = Shelf()  # see there why the module keeps it


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
            description="Makes a diffusion transformer faster, with nothing to set up: put it between the "
            "model (after LoRAs and model sampling nodes) and any sampler. The first run at a setting is a "
            "normal one that is measured on the way; from the second on, steps are reused.",
            inputs=[
                io.Model.Input("model", tooltip="The model to speed up: any diffusion transformer."),
                io.Combo.Input(
                    "budget",
                    options=list(BUDGETS),
                    default=_option(DEFAULT),
                    tooltip="From quality to speed: how near the picture stays to the one without OmniCache, "
                    "and how much faster it comes. The first run at a setting is always at full quality.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "patched",
                    display_name="model",
                    tooltip="Goes to the sampler. At each run this node says whether it was measured or "
                    "cached, and by what.",
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
            return io.NodeOutput(patched(model, make_run, on_end=_doubter(node_id)))
        except UnknownModel as unknown:
            tell(str(unknown), node_id=node_id)
            return io.NodeOutput(model)


def _run_maker(ratio: float, node_id: str | None) -> MakeRun:
    def say(text: str) -> None:
        tell(text, logging.INFO, node_id)

    def make_run(sampling: Sampling, blocks: Blocks) -> CacheRun | CalibrationOnTheWay | str:
        blocks = replace(blocks, on_size=lambda size: None)  # would take the place of what the node says
        hindrance = _hindrance(sampling)
        if hindrance is not None:
            say(hindrance)
            return hindrance
        try:
            setting = Setting.of(sampling)
            profile, wrong = _shelf.find(setting, sampling.sigmas)
            if profile is None:
                return _calibration(sampling, blocks, setting, ratio, wrong, say)
            plan = _plan(profile, sampling.sigmas, ratio)
            outlook = Outlook(profile, np.array(sampling.sigmas))
            run = cache_run(sampling, blocks, plan, suited(Correction(), sampling.sampler), outlook)
        # The user asked for a picture, and has one without the pack.
        except Exception as error:
            log.debug("OmniCache Auto", exc_info=error)
            hindrance = f"not cached, this run is at full quality: {error}"
            say(hindrance)
            return hindrance
        gain = gain_in_words(plan, measured_reuse_cost(profile))
        line = f"{_use(profile, outlook.is_exact, sampling)}: {gain}"
        remark = remark_on(sampling.sampler, profile.settings.sampler)
        say(line if remark is None else f"{line}; {remark}")
        return run

    return make_run


def _doubter(node_id: str | None) -> OnEnd:
    def on_end(sampling: Sampling, report: RunReport) -> None:
        if report.drifted_steps:
            report.drift_advice = _shelf.doubt(Setting.of(sampling), sampling.sigmas)
            tell(report.drift_remark(), logging.DEBUG, node_id)  # the log has it in the line of the run

    return on_end


def _hindrance(sampling: Sampling) -> str | None:
    """Why nothing can be reused in such a run, nor measured for others; or None."""
    if sampling.sampler in FREE_RUNNING_SAMPLERS:
        return remark_on(sampling.sampler, None)
    if sampling.steps < MIN_STEPS:
        return (
            f"steps: {sampling.steps} are too few to reuse any; at least {MIN_STEPS} are needed, so this "
            "run is at full quality"
        )
    return None


def _calibration(
    sampling: Sampling,
    blocks: Blocks,
    setting: Setting,
    ratio: float,
    wrong: list[str],
    say: Callable[[str], None],
) -> CalibrationOnTheWay:
    def finish(calibration: CalibrationRun) -> str:
        # A sampler is told neither the scheduler nor the denoise that made its sigmas.
        settings = Settings(sampling.latent_shape, sampling.sampler, "unknown", sampling.cfg, 1.0)
        timesteps = timesteps_of(sampling.model, sampling.sigmas[:-1])
        profile = calibration.profile(
            setting.model, settings, sampling.sigmas, timesteps, library.provenance()
        )
        where = _shelf.keep(profile, setting, sampling.sigmas)
        plan = _plan(profile, sampling.sigmas, ratio)
        gain = tenths(plan.speedup(measured_reuse_cost(profile)))
        return "; ".join(
            [
                "calibrated on the way (this run was at full quality)",
                f"the next ones will be about {gain}x faster",
                f"profile {where}",
                *(f"not used: {what}" for what in wrong),
            ]
        )

    say("measuring on the way: this run is at full quality, the next ones at this setting will be faster")
    calibration = CalibrationRun(sampling.steps, StackTap(blocks))
    return CalibrationOnTheWay(calibration, sampling.steps, finish, say)


def _plan(profile: Profile, sigmas: list[float], ratio: float) -> Plan:
    """Reuses the share of the steps, or as many as is good where that is too much for a short run."""
    steps, room = len(sigmas) - 1, Constraints().room
    reused = min(round(ratio * steps), steps - LEAST_COMPUTED)
    reused = min(reused, room.with_longest_run(steps, reused).most_reused(steps))
    return Schedule(Budget("full steps", steps - reused), profile=profile).plan_for(np.array(sigmas))


def _use(profile: Profile, is_exact: bool, sampling: Sampling) -> str:
    """Which profile is used for what."""
    measured, own = profile.settings.sampler, sampling.sampler
    if is_exact and measured == own:
        return f"using the profile of this setting ({profile.name})"
    by, own = (f" with {measured}", f" with {own}") if measured != own else ("", "")
    if is_exact:
        return f"using the profile measured{by} for this run{own}"
    levels = f"at {profile.steps} steps" if profile.steps != sampling.steps else "at other noise levels"
    return f"using the profile measured {levels}{by} for these {sampling.steps}{own}"
