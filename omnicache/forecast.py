"""Forecast of what is cached: a polynomial through the last full steps, read at a reused one."""

from collections.abc import Sequence

# What each past full step is multiplied by, newest first; they add up to 1.
Weights = tuple[float, ...]

REUSE: Weights = (1.0,)


def lagrange(where: float, known: Sequence[float], strength: float = 1.0) -> Weights:
    """Weights of the polynomial through the values known at these places, newest first, at another place.

    strength scales what is added to the newest value: 1 is the polynomial itself, 0 plain reuse. The known
    places must differ.
    """
    weights = []
    for number, own in enumerate(known):
        weight = 1.0
        for other in (*known[:number], *known[number + 1 :]):
            weight *= (where - other) / (own - other)
        weights.append(strength * weight)
    weights[0] += 1.0 - strength
    return tuple(weights)


def shares_of_older(weights: Weights) -> tuple[float, ...]:
    """For each past full step but the oldest, what all older ones together are multiplied by."""
    return tuple(sum(weights[number:]) for number in range(1, len(weights)))
