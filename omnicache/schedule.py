"""A schedule: the user's wishes for a plan, solved anew on the sigmas of each sampling run."""

import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from .correction import Correction
from .noise_axis import FORECAST_SMALLEST, likely_prediction, log_snr, step_lengths
from .outlook import Outlook
from .pilots import Pilot
from .plan import EVERYTHING, Budget, Constraints, Layout, Parts, Plan, StepCost, solve
from .profile import Profile

Cost = Literal["forecast error", "corrected error", "error", "curvature", "reach", "even"]
WITHOUT_PROFILE: tuple[Cost, ...] = ("reach", "even")

# In place of an error that was not measured.
UNMEASURED = 1e6

# A reuse evaluation still embeds its input and runs the final layer; used where no calibration has timed it.
TYPICAL_REUSE_COST = 0.02


class Planner(Protocol):
    """What OmniCacheModelPatch asks of a schedule: a Schedule, whose plan is solved, or a GivenSchedule."""

    @property
    def profile(self) -> Profile | None: ...

    @property
    def default_correction(self) -> Correction:
        """What is corrected if the user connects nothing."""

    @property
    def why_branches(self) -> str:
        """Why the granularity must be branch, and what to set instead; empty if the stack will do."""

    @property
    def wants_reuse(self) -> bool:
        """Whether a plan that reuses nothing is not what the user asked for."""

    @property
    def is_guarded(self) -> bool:
        """Whether the run is compared with the profile, and reuses less where it differs."""

    @property
    def shown_on(self) -> str | None:
        """The node whose plot follows the steps of the sampling run, if there is one."""

    def reuse_cost(self) -> float:
        """Time of a reuse evaluation over that of a full one."""

    def plan_for(self, sigmas: np.ndarray, layout: Layout = ()) -> Plan | Pilot:
        """The plan for a sampler's sigmas, one more than it has steps, and for a model's branches; or what
        decides in its place while sampling, for one run."""


def measured_reuse_cost(profile: Profile | None) -> float:
    """Time of a reuse evaluation over that of a full one, typical if no profile measured it."""
    measured = profile.reuse_cost() if profile is not None else math.nan
    return measured if math.isfinite(measured) else TYPICAL_REUSE_COST


@dataclass(frozen=True)
class Schedule:
    """What CurvatureScheduler hands on. profile is None only for the costs "reach" and "even", which need no
    measurement.

    cost "curvature": turning angle at the reused step, the paper's choice. "error": measured noise of the
    reuse times the length of its step. "corrected error": the part of it that gamma cannot predict.
    "reach": how far a forecast reaches, see _reach. "forecast error": the geometric mean of these two, since
    neither is better everywhere (docs/plans.md). "even": reused steps spread evenly.

    parts: what of the model the reused steps reuse; other than everything needs the granularity of branches.
    shown_on: see Planner.
    """

    budget: Budget
    cost: Cost = "forecast error"
    constraints: Constraints = field(default_factory=Constraints)
    profile: Profile | None = None
    parts: Parts = EVERYTHING
    shown_on: str | None = None

    def __post_init__(self) -> None:
        if self.profile is None and self.cost not in WITHOUT_PROFILE:
            raise ValueError(
                f"profile: none is connected or picked, and the cost {self.cost!r} is measured by one. "
                "Connect a Trajectory Calibrator, pick a saved profile, or set cost to 'reach'."
            )

    @property
    def default_correction(self) -> Correction:
        return Correction()

    @property
    def why_branches(self) -> str:
        if self.parts == EVERYTHING:
            return ""
        return "the schedule's parts name only some of them. Set granularity to 'branch', or parts to 'all'."

    @property
    def wants_reuse(self) -> bool:
        nothing = {"reuse ratio": 0.0, "speed-up": 1.0}
        return self.budget.value != nothing.get(self.budget.kind)

    @property
    def is_guarded(self) -> bool:
        # The noise that was calibrated is that of reusing everything.
        return self.profile is not None and self.parts == EVERYTHING

    def reuse_cost(self) -> float:
        """Time of a reuse evaluation over that of a full one, measured if it was."""
        return measured_reuse_cost(self.profile)

    def could_be_met(self, steps: int) -> bool:
        """Whether so many steps leave room for the budget, whatever their noise levels."""
        reused = self.budget.reused_steps(steps, self.reuse_cost())
        return self.constraints.with_longest_run(steps, reused).most_reused(steps) >= reused

    def plan_for(self, sigmas: np.ndarray, layout: Layout = ()) -> Plan:
        """Solves the plan for a sampler's sigmas, one more than it has steps, whatever the model. Raises
        ValueError if none exists."""
        steps = len(sigmas) - 1
        reused = self.budget.reused_steps(steps, self.reuse_cost())
        cost = self.step_cost(np.asarray(sigmas, dtype=np.float64), reused)
        return solve(steps, reused, self.constraints, cost, self.parts)

    def step_cost(self, sigmas: np.ndarray, reused: int) -> StepCost:
        """What a reused step costs in a plan for these sigmas that reuses so many."""
        if self.cost == "reach":
            return self._reach_cost(sigmas)
        if self.cost == "even" or self.profile is None:
            return _even(len(sigmas) - 1, reused, self.constraints)
        outlook = Outlook(self.profile, sigmas)
        if self.cost == "forecast error":
            return _geometric_mean(_error(outlook, sigmas, corrected=True), self._reach_cost(sigmas))
        if self.cost == "curvature":
            turning = outlook.turning()
            return lambda step, cached_step, source_step: float(turning[step])
        return _error(outlook, sigmas, corrected=self.cost == "corrected error")

    def _reach_cost(self, sigmas: np.ndarray) -> StepCost:
        known = self.profile.model.prediction if self.profile is not None else None
        return _reach(sigmas, known or likely_prediction(sigmas))

    def predicted_error(self, plan: Plan, sigmas: np.ndarray) -> float:
        """Error that gamma cannot predict, added up over the reused steps: how far the sample is displaced as
        a share of its way, if the output's size did not change. NaN where calibration could not measure."""
        if self.profile is None:
            return math.nan
        errors = plan.costs(replace(self, cost="corrected error").step_cost(np.asarray(sigmas), 0))
        way = step_lengths(sigmas, self.profile.model.prediction).sum()
        return math.nan if UNMEASURED in errors else sum(errors) / float(way)


def _error(outlook: Outlook, sigmas: np.ndarray, corrected: bool) -> StepCost:
    """Expected displacement of the sample, in units of the output's size times its way."""
    lengths = np.abs(step_lengths(sigmas, outlook.profile.model.prediction))  # some samplers go back

    def cost(step: int, cached_step: int, source_step: int) -> float:
        noise = outlook.noise(step, cached_step)
        if corrected:
            correlation = outlook.correlation(step, cached_step, source_step)
            if math.isfinite(correlation):
                noise *= math.sqrt(max(1.0 - correlation**2, 0.0))
        # Where calibration could not measure (the first steps have no older cache), reuse is a leap in the
        # dark.
        return noise * float(lengths[step]) if math.isfinite(noise) else UNMEASURED

    return cost


def _reach(sigmas: np.ndarray, prediction: str) -> StepCost:
    """The error of a polynomial through the last full steps grows with the product of its distances from
    them. Taken of the last two, the only ones that a plan knows, and times the length of the step, over which
    the error acts. In log-SNR, also where the forecast itself goes over the angle: that takes the first steps
    for nearly one, and plans by it lost 2 to 9 dB (docs/experiments.md)."""
    axis = log_snr(sigmas, prediction, FORECAST_SMALLEST)
    lengths = step_lengths(sigmas, prediction)

    def cost(step: int, cached_step: int, source_step: int) -> float:
        distances = (axis[step] - axis[cached_step]) * (axis[step] - axis[source_step])
        return abs(float(distances * lengths[step]))

    return cost


def _geometric_mean(measured: StepCost, reach: StepCost) -> StepCost:
    def cost(step: int, cached_step: int, source_step: int) -> float:
        known = measured(step, cached_step, source_step)
        return known if known == UNMEASURED else math.sqrt(known * reach(step, cached_step, source_step))

    return cost


def _even(steps: int, reused: int, constraints: Constraints) -> StepCost:
    """Prefers the steps of an evenly spread pattern, and short runs where the constraints force others."""
    first = max(constraints.protect_first, 2)
    room = max(steps - first - constraints.room.protect_last, 1)
    share = min(reused / room, 1.0)
    marks = np.floor((np.arange(room) + 1) * share + 1e-9) > np.floor(np.arange(room) * share + 1e-9)
    wanted = np.zeros(steps, dtype=bool)
    wanted[first : first + room] = marks

    def cost(step: int, cached_step: int, source_step: int) -> float:
        return (0.0 if wanted[step] else 1.0) + 0.01 * (step - cached_step) ** 2

    return cost


def parse_overrides(text: str) -> tuple[frozenset[int], frozenset[int]]:
    """Steps forced full and steps forced to reuse, from text such as "5 full, 10-12 reuse". Raises
    ValueError."""
    forced: dict[str, set[int]] = {"full": set(), "reuse": set()}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s+(full|reuse)", part)
        if match is None:
            raise ValueError(
                f"overrides: {part!r} is not understood. Write steps counted from 0 and what they are "
                "forced to be, such as '5 full, 10-12 reuse'."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        forced[match[3]].update(range(first, last + 1))
    return frozenset(forced["full"]), frozenset(forced["reuse"])
