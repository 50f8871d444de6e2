"""Notices when reuse disturbs a run more than it disturbed the calibration: under another LoRA, at another
size, with prompts of another kind."""

import math
import statistics

from torch import Tensor

from .outlook import Outlook
from .reading import Readings, energies

# Full steps whose median counts: a single sample takes its turns a step earlier or later than the calibrated
# ones did, which for one step looks like several times the noise.
STEPS = 3


class DriftGuard:
    """Compares |q| / |output| of each full step with what a profile expects of its age. One per sampling run.

    Never waits for the device: what a step measured counts from when it is there, on a GPU some steps later.
    """

    def __init__(self, outlook: Outlook, limit: float) -> None:
        """limit: how many times the expected noise is still no drift."""
        self._outlook = outlook
        self._limit = limit
        self._readings = Readings()
        self._step = -1  # the last full step that is known
        self._sums = (0.0, 0.0)  # of its calls: energy of the noise, of the output
        self._ratios: list[float] = []  # measured over expected, of the last full steps
        self.largest_ratio = 0.0

    def measure(self, step: int, cached_step: int, noise: Tensor, output: Tensor) -> None:
        """noise: (rows, ...) q of a full step when the cache of an earlier one stands for its blocks (Eq. 6).
        output: the same shape, the full raw output."""
        self._readings.send(energies(noise, output), about=(step, cached_step))

    def has_drifted(self) -> bool:
        """Whether the last full steps that are known measured more than the limit."""
        for (step, cached_step), (noise, output) in self._readings.arrived():
            self._take(step, cached_step, noise, output)
        return len(self._ratios) == STEPS and statistics.median(self._ratios) > self._limit

    def _take(self, step: int, cached_step: int, noise: float, output: float) -> None:
        """noise, output: the energies of one call of a full step."""
        is_further_call = step == self._step
        if is_further_call:
            noise, output = self._sums[0] + noise, self._sums[1] + output
        self._step, self._sums = step, (noise, output)
        expected = self._outlook.noise(step, cached_step)
        if output > 0 and math.isfinite(noise) and math.isfinite(expected) and expected > 0:
            past = self._ratios[:-1] if is_further_call else self._ratios
            self._ratios = [*past, math.sqrt(noise / output) / expected][-STEPS:]
            if len(self._ratios) == STEPS:
                self.largest_ratio = max(self.largest_ratio, statistics.median(self._ratios))
