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


def shares(weights: Weights) -> tuple[float, ...]:
    """For each past full step but the oldest, the share of all older ones in the mean of it and them: the
    weighted sum is then a chain of interpolations, each one pass over the tensor, from the oldest on."""
    older = [sum(weights[number:]) for number in range(len(weights))]
    return tuple(rest / whole for whole, rest in zip(older, older[1:], strict=False))
