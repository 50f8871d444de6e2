"""A profile read at the sigmas a sampler is about to use: what to expect of each step of this very run.

A profile calibrated at 50 steps serves 30 steps, another scheduler or a part of the schedule: its curves are
interpolated in log-SNR, and ages are converted from this run's steps to the calibration's.
"""

import math
from collections.abc import Callable

import numpy as np

from .noise_axis import positions
from .profile import Floats, Profile
from .spectrum import BAND_EDGES


class Outlook:
    """What a profile predicts for a run. Steps are counted in the run; sigmas has one entry more than
    steps."""

    def __init__(self, profile: Profile, sigmas: Floats) -> None:
        self.profile = profile
        self._sigmas = np.asarray(sigmas, dtype=np.float64)
        steps = len(self._sigmas) - 1
        own = profile.schedule
        self.is_exact = len(own) == len(self._sigmas) and np.allclose(own, self._sigmas, rtol=1e-3, atol=1e-4)
        if self.is_exact:
            self._position = np.arange(steps + 1, dtype=np.float64)
        else:
            self._position = positions(self._sigmas, own, profile.model.prediction)
        self._readings: dict[tuple[str, int, int], Floats] = {}  # curves of the profile at this run's steps

    @property
    def steps(self) -> int:
        return len(self._sigmas) - 1

    def turning(self) -> Floats:
        """(steps,) expected turning angle at the state each step leaves, radians."""
        return self._per_step(self.profile.turning_mean())

    def at_steps(self, curve: Floats) -> Floats:
        """(steps,) a per-step curve of the profile, read at this run's steps; NaN where it was not
        measured."""
        known = np.isfinite(curve)
        if not known.any():
            return np.full(self.steps, np.nan)
        where = np.arange(len(curve))
        values = np.interp(self._position[:-1], where[known], curve[known])
        if self.is_exact:
            values[~known] = np.nan
        return values

    def noise(self, step: int, cached_step: int) -> float:
        """Expected |q| / |output| when this step reuses the cache of an earlier one."""
        age = self._calibrated_age(cached_step, step, self.profile.ages)
        measured = self._read("noise", age, 0, lambda: self.profile.relative_noise(age))[step]
        if self.is_exact:
            return float(measured)
        # q grows in proportion to how far the cache is away in sigma; the ages of the two runs are not the
        # same.
        return float(measured) * abs(self._distance(cached_step, step)) / self._calibrated_distance(step, age)

    def correlation(self, step: int, cached_step: int, source_step: int) -> float:
        """Expected cosine between q at this step and the q measured at cached_step, whose cache was
        source_step's."""
        pair = self._calibrated_pair(step, cached_step, source_step)
        return float(self._read("correlation", *pair, lambda: self.profile.correlation(*pair))[step])

    def gamma(self, step: int, cached_step: int, source_step: int, band: int | None = None) -> float:
        """Least-squares factor from the q measured at cached_step (then with source_step's cache) to q at
        this step, in one frequency band or in all together.

        NaN where the calibration has nothing to say.
        """
        age, source_age = self._calibrated_pair(step, cached_step, source_step)
        gamma = self._read(
            f"gamma {band}", age, source_age, lambda: self.profile.gamma(age, source_age, band)
        )[step]
        if self.is_exact:
            return float(gamma)
        own = self._calibrated_distance(step, age) / self._calibrated_distance(cached_step, source_age)
        actual = self._distance(cached_step, step) / self._distance(source_step, cached_step)
        return float(gamma) * actual / own if own > 0 else math.nan

    def band_gammas(self, step: int, cached_step: int, source_step: int) -> Floats:
        """(bands,) the same factor for each frequency band, drawn towards the common one as if that came from
        one more trajectory: a band alone is few numbers. NaN where the calibration has nothing to say."""
        common = self.gamma(step, cached_step, source_step)
        bands = range(len(BAND_EDGES))
        own = np.array([self.gamma(step, cached_step, source_step, band) for band in bands])
        samples = self.profile.trajectories
        return np.where(np.isfinite(own), (samples * own + common) / (samples + 1), common)

    def step_correlation(self) -> Floats:
        """(steps,) the paper's noise correlation: gamma between neighbouring steps at age 1 (Eq. 7)."""
        return self.at_steps(self.profile.gamma(1, 1))

    def _per_step(self, density: Floats) -> Floats:
        """Interpolates a quantity that adds up along the trajectory: each step gets its share of the sum."""
        if self.is_exact:
            return density.copy()
        cumulative = np.concatenate(([0.0], np.cumsum(density)))  # at calibrated positions -0.5, 0.5, ...
        middles = np.arange(len(cumulative)) - 0.5
        position = self._position[:-1]
        edges = np.concatenate(([position[0]], (position[1:] + position[:-1]) / 2, [position[-1] + 0.5]))
        # Monotone and smooth: neither linear kinks nor overshoot into negative angles. Imported here because
        # scipy.interpolate takes longer to import than the rest of the pack.
        from scipy.interpolate import PchipInterpolator

        curve = PchipInterpolator(middles, cumulative, extrapolate=False)
        values = curve(np.clip(edges, middles[0], middles[-1]))
        return np.maximum(np.diff(values), 0.0)

    def _read(self, name: str, age: int, source_age: int, curve: Callable[[], Floats]) -> Floats:
        key = (name, age, source_age)
        if key not in self._readings:
            self._readings[key] = self.at_steps(curve())
        return self._readings[key]

    def _distance(self, earlier: int, later: int) -> float:
        return float(self._sigmas[earlier] - self._sigmas[later])

    def _calibrated_distance(self, step: int, age: int) -> float:
        """Sigma over which a cache aged during the calibration, at this run's step."""

        def distances() -> Floats:
            own = self.profile.schedule
            ends = np.maximum(self._position[:-1], age)
            starts = np.maximum(self._position[:-1] - age, 0.0)
            return np.interp(starts, np.arange(len(own)), own) - np.interp(ends, np.arange(len(own)), own)

        key = ("distance", age, 0)
        if key not in self._readings:
            self._readings[key] = distances()
        return float(self._readings[key][step])

    def _calibrated_age(self, earlier: int, later: int, most: int) -> int:
        if self.is_exact:
            return min(later - earlier, most)
        return min(max(round(self._position[later] - self._position[earlier]), 1), most)

    def _calibrated_pair(self, step: int, cached_step: int, source_step: int) -> tuple[int, int]:
        ages = self.profile.ages
        return (
            self._calibrated_age(cached_step, step, ages - 1),
            self._calibrated_age(source_step, cached_step, ages),
        )
