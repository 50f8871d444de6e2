"""Forecast of what is cached, from the last full steps to a reused one: weights of what they left."""

from collections.abc import Sequence

# What each past full step is multiplied by, newest first; they add up to 1.
Weights = tuple[float, ...]

REUSE: Weights = (1.0,)

HERMITE_SCALE = 0.5  # HiCache's sigma

# How much a parabola may magnify before it is drawn towards the line; see steadied.
STEADY = 3.0


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
        weights.append(weight)
    return _scaled(weights, strength)


def steadied(parabola: Weights, line: Weights, steady: float = STEADY) -> Weights:
    """The parabola through three full steps, drawn towards the line through the newer two.

    The sum of its weights' sizes is by how much it magnifies what in the known values is no parabola: 3.5
    half a gap ahead of evenly spaced steps, 7 a whole gap ahead. Of what it adds to the line, a share of
    (steady / magnified)^2 is kept: as for any estimate, the less the larger the variance. Measured in
    docs/experiments.md. Both sum to 1, and so does the result.
    """
    share = min((steady / sum(abs(weight) for weight in parabola)) ** 2, 1.0)
    pairs = zip(parabola, (*line, 0.0), strict=True)
    return tuple(share * curved + (1.0 - share) * straight for curved, straight in pairs)


def taylor(distance: float, gaps: Sequence[float], strength: float = 1.0) -> Weights:
    """TaylorSeer (arXiv 2503.06923): F0 + x D1 + x^2/2 D2. See _differences."""
    return _scaled(_differences(gaps, distance, distance**2 / 2), strength)


def hermite(
    distance: float, gaps: Sequence[float], strength: float = 1.0, scale: float = HERMITE_SCALE
) -> Weights:
    """HiCache (arXiv 2508.16984): the same with Hermite polynomials, F0 + s H1(s x) D1 + s^2 H2(s x)/2 D2.
    Its second order does not vanish at x = 0, so it does not pass through what was computed."""
    second = scale**2 * (4 * scale**2 * distance**2 - 2) / 2
    return _scaled(_differences(gaps, 2 * scale**2 * distance, second), strength)


def _differences(gaps: Sequence[float], first: float, second: float) -> list[float]:
    """Weights of F0 + first D1 + second D2, as far as there are gaps for them.

    gaps: between the known full steps, newest first, in steps, as distances are. D1 = (F0 - F1) / g1 and
    D2 = (D1 - (F1 - F2) / g2) / g1: as in the sources, a difference is divided by the last gap alone, so that
    the second order is not the parabola through the three.
    """
    if not gaps:
        return [1.0]
    g1, *rest = gaps
    if not rest:
        return [1 + first / g1, -first / g1]
    newer, older = second / g1**2, second / (g1 * rest[0])
    return [1 + first / g1 + newer, -first / g1 - newer - older, older]


def _scaled(weights: list[float], strength: float) -> Weights:
    """What is added to the newest value, times the strength."""
    newest, *older = (strength * weight for weight in weights)
    return (newest + 1.0 - strength, *older)


def shares_of_older(weights: Weights) -> tuple[float, ...]:
    """For each past full step but the oldest, what all older ones together are multiplied by."""
    return tuple(sum(weights[number:]) for number in range(1, len(weights)))
