"""The rivals' plans that are chosen from what a profile measured."""

import math
from collections.abc import Iterable

import numpy as np

from .outlook import Outlook
from .plan import Plan
from .profile import Floats, Profile
from .rival_rules import Sampling, reuse_between


def magcache(sampling: Sampling, longest: float) -> Plan:
    """MagCache (arXiv 2506.09045; github.com/Zehong-Ma/MagCache): the residual is reused until the summed
    distance of its magnitude's expected product of ratios from 1 reaches a threshold, or for so many steps.
    The first 20 % of the steps are full. Published: at most 2 (threshold 0.12), 4 (0.12) and 6 (0.24) in a
    row; the threshold here is 0.12 up to 4 and 0.24 beyond.

    The source averages the ratio over tokens; ours is the ratio of the whole residuals' norms, from the
    profile, read at the sampler's own sigmas.
    """
    ratios = magnitude_ratios(sampling.outlook(), sampling.profile)
    return reuse_between(magcache_steps(ratios, 0.12 if longest <= 4 else 0.24, round(longest)), sampling)


def magcache_steps(
    ratios: Iterable[float], threshold: float, longest: int, retention: float = 0.2
) -> set[int]:
    """MagCache's full steps. ratios: |R| of each step over that of the step before (paper, Eqs. 6-10)."""
    ratios = list(ratios)
    first = max(int(retention * len(ratios)), 1)
    full, product, count, error = set(range(first)), 1.0, 0, 0.0
    for step in range(first, len(ratios)):
        product, count = product * ratios[step], count + 1
        error += abs(1 - product)
        if not (error < threshold and count <= longest):
            full.add(step)
            product, count, error = 1.0, 0, 0.0
    return full


def magnitude_ratios(outlook: Outlook, profile: Profile) -> Floats:
    """(steps,) norm of the residual at each of a run's steps over that at the step before; 1 at step 0."""
    if not profile.residual.all():
        raise ValueError(
            "profile: it was measured before residuals were, and MagCache needs their magnitudes. Calibrate "
            "again, or take another method."
        )
    logs = outlook.at_steps(np.log(profile.residual) / 2)
    return np.exp(np.diff(logs, prepend=logs[0]))


def lemica_local(sampling: Sampling, share: float) -> Plan:
    """LeMiCa (arXiv 2511.00090; github.com/UnicomAI/LeMiCa): of all ways to place so many full steps, at most
    7 apart, the one whose largest error of a run of reused steps is least, then whose second largest is, and
    so on. Published: lists of 26 and 15 of 50 steps for Flux, which this rule made from measured errors.

    The source measures a run's error at the end of sampling, by sampling once for each possible run. Here it
    is the profile's error of each reused step times its length in sigma, summed over the run; caches older
    than calibrated ones are taken to grow worse in proportion to their distance in sigma. How errors grow
    until the end is missing, and with it the source's many full steps early: hence "local".
    """
    full = max(round(share * sampling.steps), math.ceil((sampling.steps - 1) / _LEMICA_SPAN) + 1)
    errors = _run_errors(sampling)
    return reuse_between(minimax_path(errors, full, _LEMICA_SPAN), sampling)


_LEMICA_SPAN = 7  # longest distance between full steps in the published lists; the text gives none


def minimax_path(errors: Floats, full: int, longest: int) -> set[int]:
    """The nodes of the path from the first to the last step with exactly so many nodes whose errors, sorted
    from the largest down, come first in lexical order (LeMiCa, Eq. 5).

    errors: (steps, steps), errors[i, j] of reusing step i's cache until step j; those of neighbours count 0.
    Exact: adding the same error to two sorted lists of equal length keeps their order, so the best list for
    each step and count is enough.
    """
    steps = len(errors)
    best: list[dict[int, tuple[tuple[float, ...], int]]] = [{} for _ in range(steps)]
    best[0][1] = ((), -1)
    for step in range(1, steps):
        for earlier in range(max(step - longest, 0), step):
            error = float(errors[earlier, step]) if step > earlier + 1 else 0.0
            for count, (list_, _) in best[earlier].items():
                candidate = tuple(sorted((*list_, error), reverse=True))
                if count < full and (count + 1 not in best[step] or candidate < best[step][count + 1][0]):
                    best[step][count + 1] = (candidate, earlier)
    if full not in best[-1]:
        raise ValueError(
            f"knob: {full} full steps cannot lead through {steps} steps at most {longest} apart. Raise the "
            "share of full steps."
        )
    path, step = set(), steps - 1
    for count in range(full, 0, -1):
        path.add(step)
        step = best[step][count][1]
    return path


def _run_errors(sampling: Sampling) -> Floats:
    """(steps, steps) expected displacement of the sample by reusing step i's cache until before step j."""
    outlook, sigmas, steps = sampling.outlook(), sampling.sigmas, sampling.steps
    ages = sampling.profile.ages
    errors = np.zeros((steps, steps))
    for cached in range(steps):
        for step in range(cached + 1, min(cached + _LEMICA_SPAN, steps)):
            known = max(cached, step - ages) if outlook.is_exact else cached
            noise = outlook.noise(step, known) * (sigmas[cached] - sigmas[step])
            noise *= (sigmas[step] - sigmas[step + 1]) / (sigmas[known] - sigmas[step])
            if step + 1 < steps:
                errors[cached, step + 1] = errors[cached, step] + noise
    return errors
