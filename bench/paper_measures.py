"""Pure functions of bench/paper.py: shapes of trajectories, correlations, errors along a run, and masks of
reused steps. Numpy and scipy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """What the paper's projection holds of one trajectory, shares 0..1. axis: of the total variance, the axis
    u alone. plane: of what lies off that axis, w1 and w2. three: of the total variance, all three."""

    axis: float
    plane: float
    three: float


def held(gram: Floats, explained: float) -> Held:
    """gram: (states, states) inner products. explained: share that w1 and w2 hold of what lies off the "
    "axis."""
    along = (gram[:, 0] - gram[:, -1]) / np.sqrt(gram[0, 0] - 2 * gram[0, -1] + gram[-1, -1])
    total = np.trace(gram) - gram.mean() * len(gram)
    axis = ((along - along.mean()) ** 2).sum() / total
    return Held(float(axis), explained, float(axis + explained * (1 - axis)))


def extents(coordinates: Floats) -> Floats:
    """(3,) how far a trajectory reaches along u, w1 and w2. coordinates: (states, 3)."""
    return np.ptp(coordinates, axis=0)


def agreement(curves: Floats) -> Floats:
    """(pairs,) Pearson correlation of each two of the curves (samples, steps), over their steps."""
    return np.corrcoef(curves)[np.triu_indices(len(curves), 1)]


def procrustes(a: Floats, b: Floats) -> float:
    """What is left of b, as a share of it, when a is moved, scaled, turned and mirrored onto it: 0 for the
    same shape, near 1 for no likeness. a, b: (points, dimensions)."""
    a, b = (points - points.mean(0) for points in (a, b))
    a, b = (points / np.linalg.norm(points) for points in (a, b))
    return float(1 - np.linalg.svd(a.T @ b, compute_uv=False).sum() ** 2)


def procrustes_of_pairs(shapes: Floats) -> Floats:
    """(pairs,) of each two of the shapes (samples, points, dimensions)."""
    return np.array([procrustes(a, b) for a, b in combinations(shapes, 2)])


@dataclass(frozen=True)
class Correlation:
    pearson: float
    spearman: float


def correlation(a: Floats, b: Floats) -> Correlation:
    """Over the entries that are finite in both."""
    both = np.isfinite(a) & np.isfinite(b)
    return Correlation(float(pearsonr(a[both], b[both])[0]), float(spearmanr(a[both], b[both])[0]))


def changes(outputs: Floats) -> Floats:
    """(steps,) |out_t - out_(t-1)| / |out_t|, mean over samples, NaN at the first step: the paper's Fig. 3c.
    outputs: (steps, samples, numbers)."""
    size = np.linalg.norm(outputs[1:], axis=-1)
    return np.concatenate(([np.nan], (np.linalg.norm(np.diff(outputs, axis=0), axis=-1) / size).mean(1)))


def noise_of(states: Floats, denoised: Floats, sigmas: Floats) -> Floats:
    """The noise that a flow model takes to be in its states x = (1 - sigma) x0 + sigma noise: (steps,
    samples, numbers), like the states and the denoised. sigmas: (steps,)."""
    sigma = sigmas[:, None, None]
    return (states - (1 - sigma) * denoised) / sigma


def drift(states: Floats, plain: Floats) -> tuple[Floats, Floats]:
    """Two curves (states,), means over samples: |x - x_plain|, and its share of |x_plain|. states, plain:
    (states, samples, numbers)."""
    away = np.linalg.norm(states - plain, axis=-1)
    return away.mean(1), (away / np.linalg.norm(plain, axis=-1)).mean(1)


def nearest(features: Floats, data: Floats) -> Floats:
    """(count,) distance of each feature to the data's nearest."""
    squares = (features**2).sum(1)[:, None] + (data**2).sum(1)[None, :] - 2 * features @ data.T
    return np.sqrt(np.maximum(squares, 0.0).min(1))


def fine_energy(pictures: np.ndarray) -> Floats:
    """(count,) energy of each picture above half the highest frequency along an axis, where noise shows as
    ripples. pictures: (count, height, width, channels)."""
    height, width = pictures.shape[1:3]
    spectrum = np.abs(np.fft.fft2(pictures.astype(np.float64), axes=(1, 2))) ** 2
    fine = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]) > 0.25
    return spectrum[:, fine].sum(axis=(1, 2)) / (height * width)


@dataclass(frozen=True)
class Estimate:
    """A mean with half the width of its 95 % interval, from the spread over the samples."""

    mean: float
    half: float


def estimate(values: Sequence[float]) -> Estimate:
    values = np.asarray(values, dtype=np.float64)
    return Estimate(float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values))))


def part_of_run(part: str, gap: int, steps: int) -> list[int]:
    """Reused steps when one step in `gap` is full. part "early" or "late": all within about half of the
    steps, as near to its end as can be; "spread": as many, evenly over all steps, none next to another. The
    first two steps and the last are full."""
    segments = (steps // 2 - 1) // gap
    if part == "spread":
        count = segments * (gap - 1)
        return [int(2 + (number + 0.5) * (steps - 3) / count) for number in range(count)]
    first = 2 if part == "early" else steps - 1 - segments * gap
    return [first + i * gap + j for i in range(segments) for j in range(1, gap)]
