"""The plain JSON that the plot widget draws; headless clients find the same in /history."""

import math

import numpy as np

from ..omnicache.plan import Plan
from ..omnicache.profile import Profile


def payload(
    profile: Profile, plan: Plan | None, reuse_cost: float, note: str | None = None
) -> dict[str, list]:
    """The ui value of a node. plan: solved on the profile's own sigmas; None where there is no schedule
    yet."""
    curvature = profile.turning_mean()
    curvature[0] = math.nan  # no segment leads to the first state
    return {
        "omnicache_plot": [
            {
                "kind": "profile" if plan is None else "schedule",
                "title": profile.name,
                "sigmas": _numbers(profile.sigmas),
                "timesteps": _numbers(profile.timesteps),
                "curvature": _numbers(curvature),
                "curvature_sd": _numbers(profile.turning_spread()),
                "gamma": _numbers(profile.gamma(1, 1)),
                "noise": _numbers(profile.relative_noise(1)),
                "reused": None if plan is None else list(plan.reused),
                "full": profile.steps if plan is None else plan.full,
                "asked": profile.steps,
                "speedup": None if plan is None else round(plan.speedup(reuse_cost), 3),
                "note": note,
            }
        ]
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON numbers; None where a value is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
