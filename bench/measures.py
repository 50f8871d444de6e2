"""Measures of pictures, of one against its uncached counterpart and of many against the data. Numpy only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Floats = NDArray[np.float64]

NEIGHBOURS = 3  # whose distance is a feature's reach in precision and recall, as in arXiv 1904.06991


def psnr(pictures: np.ndarray, reference: np.ndarray) -> float:
    """Mean over the pictures or frames (count, height, width, 3) in 0..1, dB, in float, at most 100."""
    errors = ((pictures - reference) ** 2).mean(axis=(1, 2, 3))
    return float(np.minimum(100.0, -10 * np.log10(np.maximum(errors, 1e-10))).mean())


def ssim(pictures: np.ndarray, reference: np.ndarray) -> float:
    """Mean over the pictures or frames; 11 x 11 Gaussian window of sigma 1.5."""
    return float(
        np.mean(
            [
                structural_similarity(
                    a, b, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(pictures, reference, strict=True)
            ]
        )
    )  # fmt: skip


def frechet(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (count, width):
    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2)."""
    first, second = (np.asarray(each, dtype=np.float64) for each in (features, reference))
    difference = first.mean(0) - second.mean(0)
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    # The product of two covariances has real eigenvalues of at least 0; rounding makes them a little less.
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0.0, None))
    return float(difference @ difference + sum(np.trace(each) for each in covariances) - 2 * roots.sum())


def precision_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Share of the features within reach of the reference's, and the other way round (arXiv 1904.06991). A
    set reaches as far around each of its members as its third nearest neighbour is away."""
    first, second = (np.asarray(each, dtype=np.float64) for each in (features, reference))
    across = _distances(first, second)
    precision = (across <= _reach(second)[None, :]).any(axis=1).mean()
    recall = (across <= _reach(first)[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def layer_distance(layers: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Floats:
    """(count,) perceptual distance in the layers of a network, each (count, channels, height, width): as in
    LPIPS (arXiv 1801.03924) but without its fitted weights. Channels are scaled to unit length at each
    place, and the mean squared lengths of the differences added up over the layers."""
    total = np.zeros(len(layers[0]))
    for a, b in zip(layers, reference, strict=True):
        a, b = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-10)
            for x in (a.astype(np.float64), b.astype(np.float64))
        )
        total += ((a - b) ** 2).sum(1).mean(axis=(1, 2))
    return total


def _distances(a: Floats, b: Floats) -> Floats:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _reach(features: Floats) -> Floats:
    distances = _distances(features, features)
    np.fill_diagonal(distances, 0.0)  # rounding would leave a little; place 0 is the feature itself
    return np.sort(distances, axis=1)[:, min(NEIGHBOURS, len(features) - 1)]
