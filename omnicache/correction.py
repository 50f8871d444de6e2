"""How the error of a reuse step is corrected: by what was measured at a full step, or by a forecast."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .forecast import REUSE, Weights, hermite, lagrange, steadied, taylor
from .outlook import Outlook
from .profile import Profile
from .spectrum import Grid, apply_response, band_responses, grid_of, low_pass_response

Mode = Literal["age-aware", "paper", "off", "forecast", "per-band", "taylor", "hermite"]
Filter = Literal["off", "low-high", "low", "high"]

FORECASTS: tuple[Mode, ...] = ("forecast", "taylor", "hermite")

# Least squares on few samples can ask for more than extrapolation would; beyond this it is noise.
MAX_GAMMA_OVER_AGE_RATIO = 1.5
MOST_REPAID = 1.5


@dataclass(frozen=True)
class Correction:
    """mode "paper": gamma of neighbouring steps, multiplied over consecutive reuse steps (Eq. 9).
    "age-aware": gamma for the ages of the caches in use, measured if there is a profile, else the ratio of
    the ages in sigma. "forecast": what is cached itself is continued through the last full steps, by a
    polynomial of this order (1, 2; the second steadied); no noise is measured. "per-band": age-aware, with
    a measured gamma for each frequency band. "taylor", "hermite": forecasts as TaylorSeer and HiCache make
    them, by differences between full steps, over the steps' numbers.

    filter "low-high": low-pass before the switch point, high-pass after it, as in the paper. switch_point:
    share of the model's noise range, 0 (start) to 1 (end). cutoff: cycles per latent pixel. strength
    multiplies gamma. repay: with mode "forecast", the share of what reused steps did wrong that the next
    computed step takes out of the state (repay.py), filtered as the noise of the other modes is; 0 is off.
    """

    mode: Mode = "forecast"
    filter: Filter = "off"
    switch_point: float = 0.5
    cutoff: float = 0.25
    strength: float = 1.0
    order: int = 2
    repay: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "switch_point": (0.0, 1.0),
            "cutoff": (0.01, 0.7),
            "strength": (0.0, 2.0),
            "repay": (0.0, MOST_REPAID),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: {value:g} is out of range; it lies between {low:g} and {high:g}.")
        if self.order not in (1, 2):
            raise ValueError(f"order: {self.order!r} is not possible; a forecast is of order 1 or 2.")

    @property
    def needs_noise(self) -> bool:
        return self.mode not in ("off", *FORECASTS) and self.strength > 0

    @property
    def needs_two_caches(self) -> bool:
        """Whether nothing may be reused before there are two; the rivals' forecasts then reuse plainly."""
        return self.mode == "forecast" and self.strength > 0

    @property
    def repays(self) -> bool:
        return self.mode == "forecast" and self.repay > 0

    @property
    def is_on(self) -> bool:
        """Whether it changes what is reused. It then counts from the steps that the caches are of."""
        return self.needs_noise or self.generations > 1

    def check_has_what_it_needs(self, has_profile: bool) -> None:
        """Raises ValueError for a mode that needs a profile and has none."""
        if self.mode == "paper" and not has_profile:
            raise ValueError(
                "correction: mode 'paper' multiplies gammas that a calibration measured, and the schedule "
                "has no profile. Connect a profile to the scheduler, or use mode 'age-aware'."
            )

    @property
    def generations(self) -> int:
        """How many caches a lane keeps."""
        return self.order + 1 if self.mode in FORECASTS and self.strength > 0 else 1


@dataclass(frozen=True)
class Gamma:
    """A factor, and whether the calibrated value had to be replaced or limited. bands: a factor for each
    frequency band, in place of the common one."""

    value: float
    was_limited: bool = False
    bands: tuple[float, ...] = ()


class Corrector:
    """Applies a correction in one sampling run. Keeps nothing but the filters' responses."""

    def __init__(
        self,
        correction: Correction,
        sigmas: list[float],
        outlook: Outlook | None,
        switch_sigma: float,
        axis: Sequence[float],
    ) -> None:
        """outlook: what a profile predicts for these sigmas, if there is one. switch_sigma: where the filter
        pair changes over. axis: place of each step, rising, over which a forecast is a polynomial. Raises
        ValueError for a mode that needs a profile and has none."""
        correction.check_has_what_it_needs(outlook is not None)
        self.correction = correction
        self._sigmas = sigmas
        self._outlook = outlook
        self._switch_sigma = switch_sigma
        self._axis = [float(place) for place in axis]
        self._step_gamma = outlook.step_correlation() if outlook is not None else None
        self._responses: dict[tuple[Grid, torch.device], Tensor] = {}
        self._band_responses: dict[tuple[Grid, torch.device], Tensor] = {}

    @property
    def profile(self) -> Profile | None:
        """What it goes by, if anything."""
        return self._outlook.profile if self._outlook is not None else None

    def gamma(self, step: int, cached_step: int, source_step: int) -> Gamma:
        """The factor that predicts the noise of reusing cached_step's cache at this step from the noise
        measured at cached_step, when source_step's cache was in use."""
        if self.correction.mode == "paper":
            factors = self._step_gamma[cached_step + 1 : step + 1]
            product = math.prod(float(factor) for factor in factors)
            return Gamma(product) if math.isfinite(product) else Gamma(0.0, was_limited=True)
        ratio = self._age_ratio(step, cached_step, source_step)
        if self._outlook is None:
            return Gamma(ratio)
        measured = self._outlook.gamma(step, cached_step, source_step)
        if not math.isfinite(measured):
            return Gamma(ratio, was_limited=True)
        most = MAX_GAMMA_OVER_AGE_RATIO * ratio
        limited = min(max(measured, 0.0), most)
        if self.correction.mode != "per-band":
            return Gamma(limited, was_limited=limited != measured)
        measured = self._outlook.band_gammas(step, cached_step, source_step)
        bands = measured.clip(0.0, most)
        return Gamma(limited, bool((bands != measured).any()), tuple(bands.tolist()))

    def weights(self, step: int, cached_steps: tuple[int, ...]) -> Weights:
        """How what is known of these full steps, newest first, is continued to this step: to the order that
        their number allows."""
        if self.correction.generations == 1:
            return REUSE
        cached_steps = cached_steps[: self.correction.generations]
        if self.correction.mode != "forecast":
            rule = taylor if self.correction.mode == "taylor" else hermite
            gaps = [newer - older for newer, older in itertools.pairwise(cached_steps)]
            return rule(step - cached_steps[0], gaps, self.correction.strength)
        known: list[float] = []
        for cached in cached_steps:
            if known and self._axis[cached] >= known[-1]:
                break  # a sampler that goes back
            known.append(self._axis[cached])
        if self._axis[step] <= known[0]:
            return REUSE
        strength = self.correction.strength
        weights = lagrange(self._axis[step], known, strength)
        if len(known) < 3:
            return weights
        return steadied(weights, lagrange(self._axis[step], known[:2], strength))

    def apply(self, denoised: Tensor, noise: Tensor, gamma: Gamma, sigma: Tensor, step: int) -> Tensor:
        """Takes gamma times the noise out of a reuse evaluation's raw output (Eq. 7).

        denoised: (rows, ...) the model's estimate of x0, from which the host has already subtracted sigma
        times the raw output, so that subtracting noise from the output is adding sigma times it here. noise:
        the same shape, in raw output. sigma: (rows, 1, ...).
        """
        factor = self.correction.strength
        noise = self.filtered(noise, step)
        if gamma.bands:
            noise = apply_response(noise, self._band_response(noise, gamma.bands)).to(noise.dtype)
        else:
            factor *= gamma.value
        return torch.addcmul(denoised, noise, sigma, value=factor)

    def filtered(self, noise: Tensor, step: int) -> Tensor:
        """The part of a noise, or of a change of the state, that the filter lets through at this step."""
        kind = self.correction.filter
        if kind == "off":
            return noise
        if kind == "low-high":
            kind = "low" if self._sigmas[step] > self._switch_sigma else "high"
        response = self._response(noise)
        return apply_response(noise, response if kind == "low" else 1.0 - response).to(noise.dtype)

    def _response(self, noise: Tensor) -> Tensor:
        key = (grid_of(noise.shape), noise.device)
        if key not in self._responses:
            self._responses[key] = low_pass_response(key[0], self.correction.cutoff, key[1])
        return self._responses[key]

    def _band_response(self, noise: Tensor, gammas: tuple[float, ...]) -> Tensor:
        key = (grid_of(noise.shape), noise.device)
        if key not in self._band_responses:
            self._band_responses[key] = band_responses(*key)
        of_bands = self._band_responses[key]
        # As numbers, not as a tensor, for which the device would be waited for.
        total = of_bands[0] * gammas[0]
        for of_band, gamma in zip(of_bands[1:], gammas[1:], strict=True):
            total.add_(of_band, alpha=gamma)
        return total

    def _age_ratio(self, step: int, cached_step: int, source_step: int) -> float:
        """How much farther in sigma this step is from its cache than the cache was from its predecessor's."""
        behind = self._sigmas[source_step] - self._sigmas[cached_step]
        ahead = self._sigmas[cached_step] - self._sigmas[step]
        return ahead / behind if behind > 0 and ahead > 0 else 0.0
