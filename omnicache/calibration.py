"""A calibration run: a full-quality sampling run beside which the noise of caches of several ages is
measured."""

import time
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .lane import Cache, JoinedCaches, LaneKey, Rows, Signature, split_captured
from .profile import Floats, ModelIdentity, Profile, Settings
from .run import Call, StageCounter
from .spectrum import BAND_EDGES, BandProducts, Grid, grid_of
from .storage import Kept
from .tap import BlockTap, Captured
from .trajectory import GramRecorder, geometry, menger_curvature, turning_angle

# One more than the longest run of reused steps that is planned by default: the distance between two full
# steps.
DEFAULT_AGES = 3


@dataclass(frozen=True)
class _Past:
    """One past full evaluation of a lane. spectra[age]: the noise that a cache of that age would have
    caused."""

    signature: Signature
    cache: Cache
    spectra: dict[int, Rows]


class CalibrationRun:
    """Runs every evaluation in full, and a shadow for each age that a cache could have (Eq. 6).

    Calls may show the model a part of the latent only, as areas and context windows do: each lane is compared
    with itself. A call in which nothing may be cached is computed and not measured.

    Beside the model it holds the last `ages` residuals of each lane, and the states of the trajectory on the
    CPU.
    """

    def __init__(self, steps: int, tap: BlockTap, ages: int = DEFAULT_AGES) -> None:
        bands = len(BAND_EDGES)
        self.tap = tap
        self.ages = ages
        self._step = 0
        self._steps = steps
        self._stages = StageCounter()
        self._past: dict[LaneKey, dict[int, _Past]] = {}  # by lane and step
        self._states = GramRecorder()
        self._recorded = 0
        self._latest: Tensor | None = None
        self._products: dict[Grid, BandProducts] = {}
        self._refusal = ""  # why some calls were not measured
        self._compared: set[int] = set()  # steps with a call that could be compared with the step before
        self._output = np.zeros((steps, bands))
        self._noise = np.zeros((steps, ages, bands))
        self._cross = np.zeros((steps, ages - 1, ages, bands))
        self._full_seconds = np.zeros(steps)
        self._reuse_seconds = np.zeros(steps)
        self._residual = np.zeros(steps)

    def evaluate(self, call: Call) -> Tensor:
        """Answers one call of the host in full. Raises ValueError if its blocks cannot be reached."""
        if call.refusal is not None:
            self._refusal = call.refusal
            return call.forward()
        keys = self._stages.keys(call.rows)
        if keys is None or not self._step < self._steps:  # a sampler that leaves its list of sigmas
            return call.forward()
        started = time.perf_counter()
        denoised, captured = self.tap.capture(call.forward, Kept.as_is, late=call.without_control is not None)
        _wait_for(denoised)
        self._full_seconds[self._step] += time.perf_counter() - started
        if captured is None:
            raise ValueError("model: its blocks are not reached through the host's callbacks.")
        self._measure(call, [self._past.setdefault(key, {}) for key in keys], denoised, captured)
        return denoised

    def spares_control(self, rows: tuple[Hashable, ...], x: Tensor) -> bool:
        """Never: every evaluation runs in full."""
        return False

    def state_seen(self, x: Tensor) -> None:
        """The sampler asks for an evaluation of x, (batch, ...): the whole latent, whatever parts of it the
        model will see."""
        self._latest = x.clone()  # some samplers go on in the same tensor

    def step_finished(self, step: int) -> None:
        """The sampler has evaluated step number `step` and goes on to the next. Raises ValueError as soon as
        at most steps no call could be compared with one of the step before."""
        if step > 2 * len(self._compared):
            why = self._refusal or "it saw other parts of the latent than at the step before"
            raise ValueError(
                f"model: it cannot be calibrated, {why}. Calibrate without the node that does this; for "
                "context windows set context_schedule to standard_static."
            )
        if step == self._recorded and self._latest is not None:
            self._states.add(self._latest)
            self._recorded += 1
        self._step = step + 1
        self._stages.next_step()

    def sampling_finished(self, samples: Tensor) -> None:
        """samples: (batch, ...) the trajectory's end, in the model's latent space."""
        if self._recorded != self._steps:
            raise ValueError(
                f"sampler_name: this sampler reported {self._recorded} of {self._steps} steps, so its "
                "trajectory cannot be followed. Calibrate with another one, for example euler."
            )
        self._states.add(samples)

    def close(self) -> None:
        """Frees every tensor of the model's size."""
        self._past.clear()
        self._latest = None

    def profile(
        self,
        model: ModelIdentity,
        settings: Settings,
        sigmas: list[float],
        timesteps: list[float],
        provenance: dict[str, str],
    ) -> Profile:
        """What the run measured. sigmas: one more than there are steps. Call after sampling_finished."""
        shapes = [geometry(gram) for gram in self._states.grams()]
        angles = np.stack([_per_step(turning_angle(shape.coordinates)) for shape in shapes])
        return Profile(
            model=model,
            settings=settings,
            trajectories=len(shapes),
            sigmas=np.array(sigmas[:-1], dtype=np.float64),
            final_sigma=float(sigmas[-1]),
            timesteps=np.array(timesteps, dtype=np.float64),
            turning=angles.sum(0),
            turning_squared=(angles**2).sum(0),
            menger=np.sum([_per_step(menger_curvature(shape.coordinates)) for shape in shapes], axis=0),
            coordinates=np.sum([shape.coordinates[:-1] for shape in shapes], axis=0),
            explained=float(sum(shape.explained for shape in shapes)),
            output=self._output,
            noise=self._noise,
            cross=self._cross,
            full_seconds=self._full_seconds,
            reuse_seconds=self._reuse_seconds,
            residual=self._residual,
            provenance=provenance,
        )

    def _measure(
        self, call: Call, pasts: list[dict[int, _Past]], denoised: Tensor, captured: Captured
    ) -> None:
        """Runs the shadows of one full evaluation and adds up their energies and inner products."""
        step, signature = self._step, Signature.of(call.x, len(pasts))
        sigma = call.sigma_column()
        products = self._band_products(grid_of(denoised.shape))
        output = products.spectrum((call.x - denoised) / sigma)
        self._output[step] += products.between(output, output).numpy()
        if not np.isfinite(self._output[step]).all():
            raise ValueError(
                f"model: its output at step {step} holds numbers that are not finite (NaN), so its pictures "
                "are black. Load it in another weight_dtype, or without the node that causes it."
            )
        self._residual[step] += sum(float(kept.whole().float().norm()) ** 2 for kept in captured)
        spectra: dict[int, Tensor] = {}
        seconds: list[float] = []
        for age in range(1, self.ages + 1):
            sources = [past.get(step - age) for past in pasts]
            if any(source is None or source.signature != signature for source in sources):
                continue
            started = time.perf_counter()
            shadow = self.tap.replay(
                call.reuse_forward(self.tap),
                JoinedCaches([source.cache for source in sources]),
                writes_between=call.writes_between,
            )
            _wait_for(shadow)
            self._compared.add(step)
            seconds.append(time.perf_counter() - started)
            noise = spectra[age] = products.spectrum((denoised - shadow) / sigma)
            self._noise[step, age - 1] += products.between(noise, noise).numpy()
            if age == self.ages:
                continue  # no reuse is ever that late; the age only occurs between two full steps
            for source_age in set.intersection(*(set(source.spectra) for source in sources)):
                earlier = Rows.join([source.spectra[source_age] for source in sources])
                self._cross[step, age - 1, source_age - 1] += products.between(noise, earlier).numpy()
        if seconds:
            self._reuse_seconds[step] += sum(seconds) / len(seconds)
        count = len(pasts)
        by_age = {age: Rows.split(Kept.as_is(spectrum), count) for age, spectrum in spectra.items()}
        for lane, (past, cache) in enumerate(zip(pasts, split_captured(captured, count), strict=True)):
            past[step] = _Past(signature, cache, {age: rows[lane] for age, rows in by_age.items()})
            past.pop(step - self.ages, None)

    def _band_products(self, grid: Grid) -> BandProducts:
        if grid not in self._products:
            self._products[grid] = BandProducts(grid)
        return self._products[grid]


def _per_step(curve: Floats) -> Floats:
    """A curve over the states as one over the steps, each taking the value at the state it leaves; 0 for the
    first."""
    return np.nan_to_num(curve[:-1], nan=0.0, posinf=0.0, neginf=0.0)


def _wait_for(tensor: Tensor) -> None:
    """Lets the device finish, so that the time since the start is the evaluation's."""
    if tensor.device.type != "cpu":
        tensor.flatten()[0].item()
