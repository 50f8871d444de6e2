"""The plain JSON that the plot widget draws; headless clients find the same in /history."""

import math

import numpy as np

from ..omnicache.noise_axis import log_snr
from ..omnicache.plan import AUTOMATIC, AUTOMATIC_RUNS, Plan, StepCost
from ..omnicache.profile import Profile
from ..omnicache.schedule import Schedule

MOST_STEPS_TO_REPLAN = 300  # the plot of more has no room to point at one, and the costs would be megabytes
PURE_NOISE = 0.01  # from pure noise, where log-SNR is infinite, to here the axis is cut


def payload(
    profile: Profile,
    schedule: Schedule | None = None,
    plan: Plan | None = None,
    overrides: str = "",
    note: str | None = None,
) -> dict[str, list]:
    """The ui value of a node. plan: of the schedule, solved on the profile's own sigmas; None where there is
    none yet. overrides: the text that it was solved around."""
    curvature = profile.turning_mean()
    curvature[0] = math.nan  # no segment leads to the first state
    error = math.nan if plan is None else schedule.predicted_error(plan, profile.schedule)
    return {
        "omnicache_plot": [
            {
                "kind": "profile" if plan is None else "schedule",
                "title": profile.name,
                "sigmas": _numbers(profile.sigmas),
                "timesteps": _numbers(profile.timesteps),
                "log_snr": _numbers(log_snr(profile.sigmas, profile.model.prediction, PURE_NOISE)),
                "curvature": _numbers(curvature),
                "curvature_sd": _numbers(profile.turning_spread()),
                "gamma": _numbers(profile.gamma(1, 1)),
                "noise": _numbers(profile.relative_noise(1)),
                "gain": _numbers(1 - np.sqrt(np.maximum(1 - profile.correlation(1, 1) ** 2, 0.0))),
                "path": [_numbers(point) for point in profile.coordinates / profile.trajectories],
                "reused": None if plan is None else list(plan.reused),
                "full": profile.steps if plan is None else plan.full,
                "asked": profile.steps,
                "speedup": None if plan is None else round(plan.speedup(schedule.reuse_cost()), 3),
                "note": note,
                "error": float(f"{error:.6g}") if math.isfinite(error) else None,
                "overrides": overrides,
                "replan": None if schedule is None else _replan(profile, schedule),
            }
        ]
    }


def _replan(profile: Profile, schedule: Schedule) -> dict | None:
    """All that it takes to solve the plan anew around other overrides. Numbers are exact, so that the plot
    comes to the same plan."""
    if profile.steps > MOST_STEPS_TO_REPLAN:
        return None
    reuse_cost, constraints = schedule.reuse_cost(), schedule.constraints
    longest = AUTOMATIC_RUNS[-1] if constraints.max_consecutive == AUTOMATIC else constraints.max_consecutive
    reused = schedule.budget.reused_steps(profile.steps, reuse_cost)
    error = Schedule(schedule.budget, "corrected error", constraints, profile)
    return {
        "reused": reused,
        "max_consecutive": constraints.max_consecutive,
        "protect_first": constraints.protect_first,
        "protect_last": constraints.protect_last,
        "reuse_cost": reuse_cost,
        "costs": table(schedule.step_cost(profile.schedule, reused), profile.steps, longest),
        "errors": None
        if schedule.cost == error.cost
        else table(error.step_cost(profile.schedule, reused), profile.steps, longest),
        "way": float(profile.schedule[0] - profile.schedule[-1]),
    }


def table(cost: StepCost, steps: int, longest: int) -> dict:
    """Costs in a form that JSON can hold: values in the order of step, distance to the cached step (1 to
    longest), gap from there to the source step (1 to longest + 1, or 1 for all where it makes no
    difference). 0 where no plan gets to."""

    def at(step: int, distance: int, gap: int) -> float | None:
        cached = step - distance
        return float(cost(step, cached, cached - gap)) if cached >= max(gap, 1) else None

    rows = [
        [at(step, distance, gap) for gap in range(1, longest + 2)]
        for step in range(steps)
        for distance in range(1, longest + 1)
    ]
    if all(value in (None, row[0]) for row in rows for value in row):
        rows = [row[:1] for row in rows]
    return {
        "distances": longest,
        "gaps": len(rows[0]),
        "values": [value or 0.0 for row in rows for value in row],
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON numbers; None where a value is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
