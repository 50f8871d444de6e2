"""A schedule: the user's wishes for a plan, solved anew on the sigmas of each sampling run."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from .correction import Correction
from .noise_axis import likely_prediction, plan_axis, step_lengths
from .outlook import Outlook
from .pilots import Pilot
from .plan import EVERYTHING, Budget, Constraints, Layout, Parts, Plan, StepCost, solve
from .profile import Profile

Cost = Literal["reach", "curvature", "even"]
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

    def plan_for(
        self, sigmas: np.ndarray, layout: Layout = (), prediction: str | None = None
    ) -> Plan | Pilot:
        """The plan for a sampler's sigmas, one more than it has steps, and for a model's branches and what
        it predicts (see noise_axis; guessed if nobody says); or what decides in its place while sampling,
        for one run."""


def measured_reuse_cost(profile: Profile | None) -> float:
    """Time of a reuse evaluation over that of a full one, typical if no profile measured it."""
    measured = profile.reuse_cost() if profile is not None else math.nan
    return measured if math.isfinite(measured) else TYPICAL_REUSE_COST


@dataclass(frozen=True)
class Schedule:
    """What CurvatureScheduler hands on. profile: needed by the cost "curvature" only.

    cost "reach": how far the reused step lies from the computed ones around it, see _reach. "curvature":
    turning angle at the reused step, the paper's choice. "even": reused steps spread evenly.

    parts: what of the model the reused steps reuse; other than everything needs the granularity of
    branches.
    shown_on: see Planner.
    """

    budget: Budget
    cost: Cost = "reach"
    constraints: Constraints = field(default_factory=Constraints)
    profile: Profile | None = None
    parts: Parts = EVERYTHING
    shown_on: str | None = None

    def __post_init__(self) -> None:
        if self.cost not in get_args(Cost):
            raise ValueError(f"cost: {self.cost!r} is not one of {', '.join(get_args(Cost))}.")
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

    def plan_for(self, sigmas: np.ndarray, layout: Layout = (), prediction: str | None = None) -> Plan:
        """Solves the plan for a sampler's sigmas. See Planner. Raises ValueError if none exists."""
        steps = len(sigmas) - 1
        reused = self.budget.reused_steps(steps, self.reuse_cost())
        cost = self.step_cost(np.asarray(sigmas, dtype=np.float64), reused, prediction)
        return solve(steps, reused, self.constraints, cost, self.parts)

    def step_cost(self, sigmas: np.ndarray, reused: int, prediction: str | None = None) -> StepCost:
        """What a reused step costs in a plan that reuses so many. prediction: see Planner."""
        if prediction is None and self.profile is not None:
            prediction = self.profile.model.prediction
        if self.cost == "reach":
            return _reach(sigmas, prediction or likely_prediction(sigmas))
        if self.cost == "even" or self.profile is None:
            return _even(len(sigmas) - 1, reused, self.constraints)
        turning = Outlook(self.profile, sigmas).turning()
        return lambda step, last, before, following: float(turning[step])

    def predicted_error(self, plan: Plan, sigmas: np.ndarray) -> float:
        """What the reused steps leave after repay, added up: how far the sample is displaced as a share of
        its way, if the output's size did not change. NaN where calibration could not measure."""
        if self.profile is None:
            return math.nan
        prediction = self.profile.model.prediction
        before_repay, axis = unpredicted_error(self.profile, sigmas), plan_axis(sigmas, prediction).tolist()

        def cost(step: int, last: int, before: int, following: int) -> float:
            return before_repay(step, last, before, following) * _left_by_repay(axis, step, before, following)

        if UNMEASURED in plan.costs(before_repay):
            return math.nan
        return sum(plan.costs(cost)) / float(step_lengths(sigmas, prediction).sum())


def unpredicted_error(profile: Profile, sigmas: np.ndarray) -> StepCost:
    """Expected displacement of the sample before repay, in units of the output's size times its way: the
    measured error of reuse, less the part that the noise of the computed step before predicts."""
    outlook = Outlook(profile, sigmas)
    lengths = np.abs(step_lengths(sigmas, profile.model.prediction)).tolist()  # some samplers go back

    def cost(step: int, last: int, before: int, following: int) -> float:
        noise = outlook.noise(step, last)
        correlation = outlook.correlation(step, last, before)
        if math.isfinite(correlation):
            noise *= math.sqrt(max(1.0 - correlation**2, 0.0))
        # Where calibration could not measure (the first steps have no older cache), reuse is a leap in the
        # dark.
        return noise * lengths[step] if math.isfinite(noise) else UNMEASURED

    return cost


def _left_by_repay(axis: Sequence[float], step: int, before: int, following: int) -> float:
    """The share of a forecast's error that a polynomial through the next computed step too leaves: its
    distance in the place of the oldest one's. All of it where none is computed any more."""
    if following == len(axis) - 1 or axis[step] <= axis[before]:
        return 1.0
    return min(abs(axis[following] - axis[step]) / (axis[step] - axis[before]), 1.0)


def _reach(sigmas: np.ndarray, prediction: str) -> StepCost:
    """The error that repay leaves: that of a polynomial through the computed steps around a reused one,
    which grows with the product of its distances from them; where no step is computed after it, the second
    before it counts once more. Times the root of the step's length: schedulers spend short steps where the
    output changes more, so the length itself would say too much (docs/experiments.md, "Plans")."""
    axis = plan_axis(sigmas, prediction).tolist()
    weights = np.sqrt(np.abs(step_lengths(sigmas, prediction))).tolist()
    steps = len(weights)

    def cost(step: int, last: int, before: int, following: int) -> float:
        here, third = axis[step], axis[following if following < steps else before]
        return abs((here - axis[last]) * (here - axis[before]) * (here - third)) * weights[step]

    return cost


def _even(steps: int, reused: int, constraints: Constraints) -> StepCost:
    """Prefers the steps of an evenly spread pattern, and short runs where the constraints force others."""
    first = max(constraints.protect_first, 2)
    room = max(steps - first - constraints.room.protect_last, 1)
    share = min(reused / room, 1.0)
    marks = np.floor((np.arange(room) + 1) * share + 1e-9) > np.floor(np.arange(room) * share + 1e-9)
    wanted = np.zeros(steps, dtype=bool)
    wanted[first : first + room] = marks

    def cost(step: int, last: int, before: int, following: int) -> float:
        return (0.0 if wanted[step] else 1.0) + 0.01 * (step - last) ** 2

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
