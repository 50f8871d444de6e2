"""The plain JSON that the plot widget draws; headless clients find the same in /history."""

import itertools
import math
from dataclasses import replace

import numpy as np

from ..omnicache.noise_axis import log_snr, plan_axis, step_lengths
from ..omnicache.plan import AUTOMATIC_RUNS, Plan, StepCost
from ..omnicache.profile import Profile
from ..omnicache.schedule import Schedule, unpredicted_error

MOST_STEPS_TO_REPLAN = 300  # the plot of more has no room to point at one, and the costs would be megabytes
PURE_NOISE = 0.01  # from pure noise, where log-SNR is infinite, to here the axis is cut


def payload(
    profile: Profile,
    schedule: Schedule | None = None,
    plan: Plan | None = None,
    overrides: str = "",
    note: str | None = None,
    saved_profile: str = "",
) -> dict[str, list]:
    """The ui value of a node. plan: of the schedule, solved on the profile's own sigmas; None where there is
    none yet. overrides: the text that it was solved around. saved_profile: the input."""
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
                "settings": None if schedule is None else _settings(schedule, overrides, saved_profile),
                "replan": None if schedule is None else _replan(profile, schedule),
            }
        ]
    }


def _settings(schedule: Schedule, overrides: str, saved_profile: str) -> dict:
    """The node's inputs that the plan was made of, so that the plot sees when they change."""
    return {
        "saved_profile": saved_profile,
        "budget_kind": schedule.budget.kind,
        "budget": schedule.budget.value,
        "cost": schedule.cost,
        "max_consecutive": schedule.constraints.max_consecutive,
        "protect_first": schedule.constraints.protect_first,
        "protect_last": schedule.constraints.protect_last,
        "overrides": overrides,
    }


def _replan(profile: Profile, schedule: Schedule) -> dict | None:
    """All that it takes to solve the plan anew for other inputs. Numbers are exact, so that the plot comes to
    the same plan."""
    if profile.steps > MOST_STEPS_TO_REPLAN:
        return None
    sigmas, prediction = profile.schedule, profile.model.prediction
    lengths = step_lengths(sigmas, prediction)
    curvature = replace(schedule, cost="curvature").step_cost(sigmas, 0)
    return {
        "reuse_cost": schedule.reuse_cost(),
        "curvature": table(curvature, profile.steps, AUTOMATIC_RUNS[-1]),
        "error": table(unpredicted_error(profile, sigmas), profile.steps, AUTOMATIC_RUNS[-1]),
        "axis": plan_axis(sigmas, prediction).tolist(),
        "lengths": lengths.tolist(),
        "way": float(lengths.sum()),
    }


def table(cost: StepCost, steps: int, longest: int) -> dict:
    """Costs that no later step changes, in a form that JSON can hold: values in the order of step, distance
    to the computed step before it (1 to longest), gap from there to the one before that (1 to longest + 1);
    those that make no difference to the one before are left out. 0 where no plan gets to."""
    values = np.full((steps, longest, longest + 1), math.nan)
    for step, distance, gap in itertools.product(range(steps), range(1, longest + 1), range(1, longest + 2)):
        cached = step - distance
        if cached >= max(gap, 1):
            values[step, distance - 1, gap - 1] = cost(step, cached, cached - gap, step + 1)
    for dimension in (2, 1):
        while values.shape[dimension] > 1:
            *_, before, last = np.moveaxis(values, dimension, 0)
            if not (np.isnan(last) | (last == before)).all():
                break
            values = np.delete(values, -1, axis=dimension)
    return {
        "distances": values.shape[1],
        "gaps": values.shape[2],
        "values": np.nan_to_num(values).ravel().tolist(),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON numbers; None where a value is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
