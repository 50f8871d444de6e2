"""Radial frequency bands of a latent grid: the filters of the correction and the band energies of
calibration.

Frequencies are in cycles per latent pixel, 0 to 0.5 along an axis. They are taken over the last two
dimensions (height, width), so a video is filtered frame by frame.
"""

import math

import torch
from torch import Tensor

# Upper edges of the bands a profile stores, in cycles per latent pixel; the last holds the corners of the
# grid.
BAND_EDGES = (0.05, 0.1, 0.2, 0.35, 1.0)


def radial_frequency(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(height, width // 2 + 1) distance from zero frequency, laid out as torch.fft.rfft2 lays out its
    result."""
    vertical = torch.fft.fftfreq(height, device=device)[:, None]
    horizontal = torch.fft.rfftfreq(width, device=device)[None, :]
    return torch.sqrt(vertical**2 + horizontal**2)


def low_pass_response(height: int, width: int, cutoff: float, device: torch.device | None = None) -> Tensor:
    """Second-order Butterworth low-pass, 1 at zero frequency and one half at the cutoff; the matching
    high-pass is 1 minus it. An ideal cut would ring on a latent grid.

    cutoff: cycles per latent pixel, above 0. Returns (height, width // 2 + 1).
    """
    return 1.0 / (1.0 + (radial_frequency(height, width, device) / cutoff) ** 4)


def band_responses(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """A response for each band of a profile, (bands, height, width // 2 + 1): 1 in the middle of its band,
    falling in a straight line to 0 in the middle of the next, so that they add up to 1 everywhere. Steps at
    the borders would ring."""
    frequency = radial_frequency(height, width, device)
    lower = (0.0, *BAND_EDGES[:-1])
    upper = (*BAND_EDGES[:-1], math.sqrt(0.5))  # the corners of the grid
    middles = torch.tensor([(low + high) / 2 for low, high in zip(lower, upper, strict=True)], device=device)
    last = len(BAND_EDGES) - 1
    above = torch.bucketize(frequency, middles).clamp(1, last)
    share = (frequency - middles[above - 1]) / (middles[above] - middles[above - 1])
    share = share.clamp(0.0, 1.0)
    band = torch.arange(last + 1, device=device)[:, None, None]
    return torch.where(band == above, share, 0.0) + torch.where(band == above - 1, 1.0 - share, 0.0)


def apply_response(signal: Tensor, response: Tensor) -> Tensor:
    """Filters (..., height, width) with a response (height, width // 2 + 1), in float32."""
    spectrum = torch.fft.rfft2(signal.float()) * response
    return torch.fft.irfft2(spectrum, s=signal.shape[-2:])


class BandProducts:
    """Inner products of grids, split by frequency band."""

    def __init__(self, height: int, width: int) -> None:
        frequency = radial_frequency(height, width).flatten()
        self._bands = torch.bucketize(frequency, torch.tensor(BAND_EDGES[:-1]), right=True)
        # rfft2 keeps one of each conjugate pair of columns, so those count twice (not the first, nor
        # Nyquist).
        weights = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
        weights[0] = 1.0
        if width % 2 == 0:
            weights[-1] = 1.0
        self._weights = (weights / (height * width)).repeat(height)

    @staticmethod
    def spectrum(grid: Tensor) -> Tensor:
        """Spectrum of (..., height, width) on the CPU, ready for `between`."""
        return torch.fft.rfft2(grid.float()).cpu()

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of two grids given by their spectra, a float64 per band; their sum is the plain inner
        product of the grids (Parseval)."""
        products = (a.real.double() * b.real + a.imag.double() * b.imag).flatten(0, -3).sum(0).flatten()
        return torch.zeros(len(BAND_EDGES), dtype=torch.float64).index_add_(
            0, self._bands, products * self._weights
        )
