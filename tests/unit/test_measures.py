"""The bench's measures on data whose result can be worked out by hand."""

import numpy as np
import pytest

from measures import frechet, layer_distance, precision_recall, psnr, ssim


def test_psnr_is_of_the_mean_squared_error_of_each_picture():
    black = np.zeros((2, 4, 4, 3))
    other = np.stack([np.full((4, 4, 3), 0.1), np.full((4, 4, 3), 0.01)])
    assert psnr(other, black) == pytest.approx((20 + 40) / 2)
    assert psnr(black, black) == 100.0


def test_ssim_is_1_for_the_same_and_less_for_another():
    pictures = np.random.default_rng(0).random((2, 16, 16, 3))
    assert ssim(pictures, pictures) == pytest.approx(1.0)
    assert ssim(1 - pictures, pictures) < 0
    # Two constant pictures have no structure: what is left is (2ab + c) / (a^2 + b^2 + c), c = 0.01^2.
    grey, white = np.full((1, 16, 16, 3), 0.5), np.ones((1, 16, 16, 3))
    assert ssim(grey, white) == pytest.approx((2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4))


def test_frechet_distance_of_shifted_and_of_stretched_features():
    features = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet(features, features) == pytest.approx(0.0, abs=1e-9)
    assert frechet(features + [3, 0, 0, 4], features) == pytest.approx(25.0)
    # Twice as wide: tr(4 S + S - 2 * 2 S) = tr S; and the mean moves by itself.
    mean, spread = features.mean(0), np.trace(np.cov(features, rowvar=False))
    assert frechet(2 * features, features) == pytest.approx(spread + mean @ mean)


def test_precision_and_recall_of_half_the_modes():
    """The data have two clusters far apart. Samples of one of them are all good and cover half."""
    rng = np.random.default_rng(0)
    left, right = rng.random((40, 2)), rng.random((40, 2)) + 100
    data = np.concatenate((left, right))
    precision, recall = precision_recall(left, data)
    assert (precision, recall) == (1.0, 0.5)
    assert precision_recall(data, left) == (0.5, 1.0)
    assert precision_recall(left + 1000, data) == (0.0, 0.0)


def test_layer_distance_compares_directions_of_the_channels():
    """One place of two is turned by a right angle: squared length 2, mean over the two places 1."""
    a = np.array([[[[1.0, 1.0]], [[0.0, 0.0]]]])  # (1, 2 channels, 1, 2 places)
    b = np.array([[[[5.0, 0.0]], [[0.0, 3.0]]]])
    assert layer_distance([a, a], [b, a]).tolist() == [1.0]
