"""How alike two pictures are, by the usual measures. Torch only, so that a sampling machine has all it
needs."""

import torch
import torch.nn.functional as functional
from torch import Tensor

MOST_DECIBELS = 100.0  # of equal pictures, whose PSNR is infinite

# Of Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", 3.B and C.
WINDOW = 11  # pixels
WINDOW_SIGMA = 1.5  # pixels
STABILISERS = (0.01**2, 0.03**2)  # C1 and C2 for values in 0..1


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / mean squared error), dB, at most 100. (frames,)

    images, reference: (frames, height, width, channels) in 0..1.
    """
    # One frame after the other, so that a video takes no second one's memory.
    errors = torch.stack(
        [(a.float() - b.float()).square().mean() for a, b in zip(images, reference, strict=True)]
    )
    return (-10 * torch.log10(errors)).clamp(max=MOST_DECIBELS)


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity, 1 for equal pictures. (frames,)

    images, reference: (frames, height, width, channels) in 0..1, at least 11 pixels each way. A Gaussian
    window of 11 x 11 pixels and sigma 1.5 where it lies wholly inside; each channel by itself, then their
    mean. Raises ValueError for smaller pictures.
    """
    height, width = images.shape[1:3]
    if min(height, width) < WINDOW:
        raise ValueError(
            f"images: {width} x {height} pixels are too few for SSIM, whose window has {WINDOW} x {WINDOW}. "
            "Give larger pictures."
        )
    return torch.stack([_ssim(a, b) for a, b in zip(images, reference, strict=True)])


def difference(image: Tensor, reference: Tensor) -> Tensor:
    """(height, width) largest absolute difference of the channels; image, reference: (height, width,
    channels)."""
    return (image.float() - reference.float()).abs().amax(-1)


def _ssim(image: Tensor, reference: Tensor) -> Tensor:
    """() of one picture (height, width, channels)."""
    x, y = (each.float().movedim(-1, 0)[:, None] for each in (image, reference))  # (channels, 1, h, w)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_blurred(each) for each in (x, y, x * x, y * y, x * y))
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = STABILISERS
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (alike / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))).mean()


def _blurred(x: Tensor) -> Tensor:
    """Weighted means under the window, where it fits. (channels, 1, height - 10, width - 10)"""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    weights /= weights.sum()
    return functional.conv2d(functional.conv2d(x, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
