"""PSNR and SSIM at run time, against numbers worked out by hand and against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from comfyui_omnicache.omnicache.similarity import difference, psnr, ssim


def test_psnr_is_of_the_mean_squared_error_of_each_frame():
    black = torch.zeros(3, 4, 4, 3)
    other = torch.stack([torch.full((4, 4, 3), value) for value in (0.1, 0.01, 0.0)])
    assert psnr(other, black).tolist() == pytest.approx([20, 40, 100], abs=1e-3)


@pytest.mark.parametrize("size", [(11, 11), (33, 20), (64, 64)])
def test_ssim_is_that_of_scikit_image(size):
    rng = np.random.default_rng(0)
    # Smooth, noisy and constant pictures, and one that is the reference itself.
    ramp = np.linspace(0, 1, size[0] * size[1] * 3).reshape(*size, 3)
    reference = np.stack([ramp, ramp, np.full((*size, 3), 0.5), ramp])
    images = np.stack([ramp**2, rng.random((*size, 3)), np.full((*size, 3), 0.8), ramp])
    expected = [
        structural_similarity(
            a, b, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(images, reference, strict=True)
    ]  # fmt: skip
    assert ssim(torch.tensor(images), torch.tensor(reference)).tolist() == pytest.approx(expected, abs=1e-4)
    assert expected[3] == 1.0


def test_a_picture_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="images: 40 x 10 pixels are too few for SSIM"):
        ssim(torch.zeros(1, 10, 40, 3), torch.zeros(1, 10, 40, 3))


def test_the_difference_is_the_largest_of_the_channels():
    assert difference(torch.tensor([[[0.5, 0.2, 0.9]]]), torch.tensor([[[0.4, 0.5, 0.9]]])).tolist() == [
        pytest.approx([0.3])
    ]
