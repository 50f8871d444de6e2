"""Radial frequency bands of a latent grid: the filters of the correction and the band energies of
calibration.

Frequencies are in cycles per latent pixel, 0 to 0.5 along an axis. They are taken over the axes that grid_of
names, so a video is filtered frame by frame and sound along time.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Upper edges of the bands a profile stores, in cycles per latent pixel; the last holds the corners of the
# grid.
BAND_EDGES = (0.05, 0.1, 0.2, 0.35, 1.0)

# Sizes of the last axes of a latent that frequencies are taken over.
Grid = tuple[int, ...]


def grid_of(shape: Sequence[int]) -> Grid:
    """The grid of a latent (rows, channels, ...): height and width, frame by frame in a video, or the length
    of one that has only that (Stable Audio). Bands over a video's time too gain nothing (docs/studies.md)."""
    return tuple(shape[2:])[-2:]


def radial_frequency(grid: Grid, device: torch.device | None = None) -> Tensor:
    """(*grid, with the last size n as n // 2 + 1) distance from zero frequency, laid out as torch.fft.rfftn
    lays out its result."""
    axes = [torch.fft.fftfreq(size, device=device) for size in grid[:-1]]
    axes.append(torch.fft.rfftfreq(grid[-1], device=device))
    return torch.sqrt(sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")))


def low_pass_response(grid: Grid, cutoff: float, device: torch.device | None = None) -> Tensor:
    """Second-order Butterworth low-pass, 1 at zero frequency and one half at the cutoff; the matching
    high-pass is 1 minus it. An ideal cut would ring on a latent grid.

    cutoff: cycles per latent pixel, above 0. Returns the shape of radial_frequency.
    """
    return 1.0 / (1.0 + (radial_frequency(grid, device) / cutoff) ** 4)


def band_responses(grid: Grid, device: torch.device | None = None) -> Tensor:
    """A response for each band of a profile, (bands, *shape of radial_frequency): 1 in the middle of its
    band, falling in a straight line to 0 in the middle of the next, so that they add up to 1 everywhere.
    Steps at the borders would ring."""
    frequency = radial_frequency(grid, device)
    lower = (0.0, *BAND_EDGES[:-1])
    upper = (*BAND_EDGES[:-1], 0.5 * math.sqrt(len(grid)))  # the corners of the grid
    middles = torch.tensor([(low + high) / 2 for low, high in zip(lower, upper, strict=True)], device=device)
    last = len(BAND_EDGES) - 1
    above = torch.bucketize(frequency, middles).clamp(1, last)
    share = (frequency - middles[above - 1]) / (middles[above] - middles[above - 1])
    share = share.clamp(0.0, 1.0)
    band = torch.arange(last + 1, device=device).view(-1, *(1,) * len(grid))
    return torch.where(band == above, share, 0.0) + torch.where(band == above - 1, 1.0 - share, 0.0)


def apply_response(signal: Tensor, response: Tensor) -> Tensor:
    """Filters (..., *grid) with a response of that grid, in float32."""
    axes = tuple(range(-response.ndim, 0))
    spectrum = torch.fft.rfftn(signal.float(), dim=axes) * response
    return torch.fft.irfftn(spectrum, s=signal.shape[-response.ndim :], dim=axes)


class BandProducts:
    """Inner products of latents, split by frequency band."""

    def __init__(self, grid: Grid) -> None:
        self._axes = tuple(range(-len(grid), 0))
        frequency = radial_frequency(grid).flatten()
        self._bands = torch.bucketize(frequency, torch.tensor(BAND_EDGES[:-1]), right=True)
        # rfftn keeps one of each conjugate pair along the last axis, so those count twice (not the first, nor
        # Nyquist).
        weights = torch.full((grid[-1] // 2 + 1,), 2.0, dtype=torch.float64)
        weights[0] = 1.0
        if grid[-1] % 2 == 0:
            weights[-1] = 1.0
        self._weights = (weights / math.prod(grid)).repeat(math.prod(grid[:-1]))

    def spectrum(self, latent: Tensor) -> Tensor:
        """Spectrum of (..., *grid) on the CPU, ready for `between`."""
        return torch.fft.rfftn(latent.float(), dim=self._axes).cpu()

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of two latents given by their spectra, a float64 per band; their sum is the plain
        inner product of the latents (Parseval)."""
        products = a.real.double() * b.real + a.imag.double() * b.imag
        products = products.flatten(0, self._axes[0] - 1).sum(0).flatten()
        return torch.zeros(len(BAND_EDGES), dtype=torch.float64).index_add_(
            0, self._bands, products * self._weights
        )
