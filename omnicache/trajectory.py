"""Geometry of a sampling trajectory, from the inner products of its states.

A trajectory of P states lives in at most P dimensions however many pixels a state has, so everything here
works on the P x P Gram matrix in float64 and never on a steps x pixels array.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


class GramRecorder:
    """Collects the states of a batch of trajectories and their inner products. One per sampling run."""

    def __init__(self) -> None:
        self._states: list[Tensor] = []
        self._products: list[Floats] = []

    def add(self, state: Tensor) -> None:
        """state: (batch, ...), one row a trajectory. Kept as float32 on the CPU until the run ends."""
        state = state.detach().flatten(1).float().cpu().clone()  # (batch, pixels)
        self._states.append(state)
        wide = state.double()
        self._products.append(
            np.stack([(wide * earlier.double()).sum(1).numpy() for earlier in self._states])
        )

    def grams(self) -> Floats:
        """(batch, states, states) inner products."""
        count = len(self._states)
        gram = np.zeros((self._states[0].shape[0], count, count))
        for i, products in enumerate(self._products):  # products: (i + 1, batch)
            gram[:, i, : i + 1] = products.T
            gram[:, : i + 1, i] = products.T
        return gram


@dataclass(frozen=True)
class Geometry:
    """coordinates: (states, 3) displacement from the last state along u, w1, w2 (Eq. 4-5).
    explained: share of what lies off the axis u that the plane (w1, w2) holds, 0..1."""

    coordinates: Floats
    explained: float


def geometry(gram: Floats) -> Geometry:
    """Projects a trajectory on the axis from its end to its start and the two principal directions off that
    axis.

    gram: (states, states) inner products. u is Eq. 4, w1 and w2 the principal components of what is left
    after removing u. Their signs are arbitrary in principle; they are fixed so that each reaches furthest in
    the positive direction, which makes trajectories of different samples comparable. Raises ValueError for a
    trajectory whose start and end coincide.
    """
    length_squared = gram[0, 0] - 2 * gram[0, -1] + gram[-1, -1]
    if not length_squared > 0:
        raise ValueError("trajectory: its first and last state coincide, so it has no direction.")
    along = (gram[:, 0] - gram[:, -1]) / np.sqrt(length_squared)  # (states,) x . u
    off_axis = gram - np.outer(along, along)
    centring = np.eye(len(gram)) - 1.0 / len(gram)
    values, vectors = np.linalg.eigh(centring @ off_axis @ centring)
    values = np.clip(values, 0.0, None)
    plane = vectors[:, [-1, -2]] * np.sqrt(values[[-1, -2]])  # (states, 2)
    plane = plane - plane[-1]
    furthest = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    plane = plane * np.where(furthest < 0, -1.0, 1.0)
    total = values.sum()
    explained = float(values[-2:].sum() / total) if total > 0 else 1.0
    return Geometry(np.column_stack((along - along[-1], plane)), explained)


def turning_angle(points: Floats) -> Floats:
    """Angle in radians between the segments that meet at each point; NaN at the two ends.

    points: (states, dimensions). Dimensionless (curvature times arc length to first order): it does not
    explode where steps get short, as curvature per length does, and it is what enters the paper's Eq. 8.
    """
    segments = np.diff(points, axis=0)
    before, after = segments[:-1], segments[1:]
    norms = np.linalg.norm(before, axis=1, keepdims=True), np.linalg.norm(after, axis=1, keepdims=True)
    # atan2 of |a||b| sin and |a||b| cos keeps its digits for small angles, where arccos has lost them.
    a, b = before * norms[1], after * norms[0]
    angle = 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return np.concatenate(([np.nan], angle, [np.nan]))


def menger_curvature(points: Floats) -> Floats:
    """One over the radius of the circle through each point and its neighbours, 1/length; NaN at the two ends.

    Rises by orders of magnitude where steps shrink towards the end of sampling (Karras spacing): kept to
    compare with the turning angle, which is the default everywhere.
    """
    before, after = np.diff(points, axis=0)[:-1], np.diff(points, axis=0)[1:]
    across = np.linalg.norm(before + after, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = 2 * np.sin(turning_angle(points)[1:-1]) / across
    return np.concatenate(([np.nan], curvature, [np.nan]))
