"""Forecast of what is cached: a polynomial in sigma through the last full steps, read at a reused one."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """weights: what each past full step is multiplied by, newest first; they add up to 1. One weight is plain
    reuse. was_limited: a calibrated factor had to be replaced or limited."""

    weights: tuple[float, ...]
    was_limited: bool = False

    @property
    def shares(self) -> tuple[float, ...]:
        """For each past full step but the oldest, the share of all older ones in the mean of it and them: the
        weighted sum is then a chain of interpolations, each one pass over the tensor, from the oldest on."""
        older = [sum(self.weights[number:]) for number in range(len(self.weights))]
        return tuple(rest / whole for whole, rest in zip(older, older[1:], strict=False))


REUSE = Forecast((1.0,))


def lagrange(sigma: float, known: Sequence[float], damping: float = 1.0) -> tuple[float, ...]:
    """Weights of the polynomial through the values known at these sigmas, newest first, at another sigma.

    damping scales what is added to the newest value: 1 is the polynomial itself, 0 plain reuse. The known
    sigmas must differ.
    """
    weights = []
    for number, own in enumerate(known):
        weight = 1.0
        for other in (*known[:number], *known[number + 1 :]):
            weight *= (sigma - other) / (own - other)
        weights.append(damping * weight)
    weights[0] += 1.0 - damping
    return tuple(weights)
