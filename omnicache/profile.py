"""What calibration measured for a model and its sampling settings, as sums that merge exactly, and its JSON
file."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spectrum import BAND_EDGES

Floats = NDArray[np.float64]

FORMAT = "omnicache-profile"
VERSION = 1
MAX_STEPS = 1000
MAX_AGE = 8
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_NUMBER = 1e100  # beyond anything measured, and its square is still finite
MAX_TRAJECTORIES = 10**9
PREDICTIONS = ("flow", "epsilon", "other")
# Energies, times and angles: sums of what cannot be negative.
NOT_NEGATIVE = ("turning", "turning_squared", "menger", "output", "noise", "full_seconds", "reuse_seconds")


@dataclass(frozen=True)
class ModelIdentity:
    """architecture: fingerprint of the names and shapes of the weights. weights: fingerprint of a sample of
    their values and of the patches on them (LoRA). prediction: one of PREDICTIONS, see noise_axis."""

    family: str
    architecture: str
    weights: str
    prediction: str


@dataclass(frozen=True)
class Settings:
    """The sampling settings of a calibration. latent_shape: (channels, [frames,] height, width) of one
    sample."""

    latent_shape: tuple[int, ...]
    sampler: str
    scheduler: str
    cfg: float
    denoise: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Sums over the calibration's trajectories and over the rows (trajectories x conditionings) of its noise.

    All arrays are parallel, one entry a step; N steps, A ages, R reuse ages (R < A), K frequency bands.
    sigmas, timesteps: (N,); final_sigma ends the last step.
    turning, turning_squared: (N,) turning angle at the state each step leaves, radians; 0 at step 0.
    menger: (N,) Menger curvature, 1/length; 0 at step 0.
    coordinates: (N, 3) displacement from the trajectory's end along u, w1, w2 (Eq. 5); explained: one number.
    output: (N, K) energy of the raw output, sum of squares by band.
    noise: (N, A, K) energy of the noise q of a cache of age 1..A (Eq. 6).
    cross: (N, R, A, K) inner product of q at this step and age with q at the step its cache comes from, when
    that one's cache was 1..A steps old then: what gamma is the least-squares ratio of (Eq. 7).
    full_seconds, reuse_seconds: (N,) time of the full and the reuse evaluations.
    residual: (N,) energy of the residual of all blocks; 0 in profiles from before it was measured.
    """

    model: ModelIdentity
    settings: Settings
    trajectories: int
    sigmas: Floats
    final_sigma: float
    timesteps: Floats
    turning: Floats
    turning_squared: Floats
    menger: Floats
    coordinates: Floats
    explained: float
    output: Floats
    noise: Floats
    cross: Floats
    full_seconds: Floats
    reuse_seconds: Floats
    residual: Floats
    provenance: dict[str, str]

    def __post_init__(self) -> None:
        for array in self._arrays().values():
            array.setflags(write=False)

    def __deepcopy__(self, memo: dict) -> "Profile":
        return self  # immutable; the host deep-copies what travels between nodes

    @property
    def steps(self) -> int:
        return len(self.sigmas)

    @property
    def ages(self) -> int:
        """Oldest cache whose noise was measured, in steps."""
        return self.noise.shape[1]

    @property
    def schedule(self) -> Floats:
        """(N + 1,) sigmas with the final one."""
        return np.append(self.sigmas, self.final_sigma)

    @property
    def name(self) -> str:
        return f"{self.model.family} · {self.settings.sampler} · {self.steps} steps"

    def turning_mean(self) -> Floats:
        return self.turning / self.trajectories

    def turning_spread(self) -> Floats:
        """Standard deviation over the trajectories, radians."""
        variance = self.turning_squared / self.trajectories - self.turning_mean() ** 2
        return np.sqrt(np.maximum(variance, 0.0))

    def relative_noise(self, age: int) -> Floats:
        """(N,) |q| / |output| of a cache that old; NaN where it could not be measured."""
        return _ratio(np.sqrt(self.noise[:, age - 1].sum(-1)), np.sqrt(self.output.sum(-1)))

    def gamma(self, age: int, source_age: int, band: int | None = None) -> Floats:
        """(N,) least-squares factor that predicts q of this age from q measured when the cache was made (Eq.
        7), in one frequency band or in all together; NaN where either could not be measured. gamma(1, 1) is
        the paper's noise correlation."""
        bands = slice(None) if band is None else slice(band, band + 1)
        source = np.full(self.steps, np.nan)
        source[age:] = self.noise[:-age, source_age - 1, bands].sum(-1)
        return _ratio(self.cross[:, age - 1, source_age - 1, bands].sum(-1), source)

    def correlation(self, age: int, source_age: int) -> Floats:
        """(N,) cosine between the two noises that gamma(age, source_age) relates."""
        source = np.full(self.steps, np.nan)
        source[age:] = self.noise[:-age, source_age - 1].sum(-1)
        return _ratio(
            self.cross[:, age - 1, source_age - 1].sum(-1),
            np.sqrt(source * self.noise[:, age - 1].sum(-1)),
        )

    def reuse_cost(self) -> float:
        """Time of a reuse evaluation over that of a full one, 0..1; NaN if it was not measured."""
        measured = self.reuse_seconds > 0  # the first step has no cache to be reused
        full, reuse = self.full_seconds[measured].sum(), self.reuse_seconds.sum()
        return float(min(reuse / full, 1.0)) if full > 0 and reuse > 0 else math.nan

    def check_takes(self, model: ModelIdentity, settings: Settings, sigmas: Floats, ages: int) -> None:
        """Raises ValueError unless samples of this model, these settings, sigmas (N + 1,) and ages of caches
        can be added."""
        pairs = [
            (field.name, getattr(mine, field.name), getattr(theirs, field.name))
            for mine, theirs in ((self.model, model), (self.settings, settings))
            for field in dataclasses.fields(mine)
        ]
        for name, mine, theirs in [*pairs, ("steps", self.steps, len(sigmas) - 1)]:
            if mine != theirs:
                raise ValueError(
                    f"profile: it was measured with {name} {mine}, and this calibration has {theirs}. "
                    "Calibrate with the same model and settings, or leave the profile input empty."
                )
        if not np.allclose(self.schedule, sigmas, rtol=1e-4, atol=1e-6):
            raise ValueError(
                "profile: its sigmas differ from those of this calibration. Use the same shift, or leave "
                "the profile input empty."
            )
        if self.ages != ages:
            raise ValueError(
                f"profile: it holds caches of {self.ages} ages, and this calibration measures {ages}. Leave "
                "the profile input empty."
            )

    def merged_with(self, other: "Profile") -> "Profile":
        """The profile of both calibrations' samples together: sums add exactly.

        Raises ValueError if the two were not measured on the same model with the same settings.
        """
        self.check_takes(other.model, other.settings, other.schedule, other.ages)
        sums = {
            name: array + getattr(other, name)
            for name, array in self._arrays().items()
            if name not in ("sigmas", "timesteps")
        }
        return dataclasses.replace(
            self,
            trajectories=self.trajectories + other.trajectories,
            explained=self.explained + other.explained,
            **sums,
        )

    def to_json(self) -> str:
        """The profile as JSON text, a few hundred kilobytes at most."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "model": dataclasses.asdict(self.model),
            "settings": dataclasses.asdict(self.settings),
            "trajectories": self.trajectories,
            "final_sigma": self.final_sigma,
            "explained": self.explained,
            "band_edges": list(BAND_EDGES),
            "steps": {name: _rounded(array) for name, array in self._arrays().items()},
            "provenance": self.provenance,
        }
        return json.dumps(document, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> "Profile":
        """Reads and validates a profile. name: what errors call it. Raises ValueError naming what is
        wrong."""
        return _read(text, name)

    def _arrays(self) -> dict[str, Floats]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def fall(sigmas: Floats) -> bool:
    """Whether noise levels fall from step to step: by more than rounding, since ages are ratios of such
    distances."""
    return bool((np.diff(sigmas) < -1e-9 * sigmas[0]).all())


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _rounded(array: Floats) -> list:
    """Nine digits: exact to float32, in which it was measured, and less than half the file."""
    return [float(f"{value:.9g}") for value in array] if array.ndim == 1 else [_rounded(row) for row in array]


def _read(text: str, name: str) -> Profile:
    def wrong(what: str) -> ValueError:
        return ValueError(f"profile {name!r}: {what}. Calibrate again, or pick another profile.")

    if len(text) > MAX_FILE_BYTES:
        raise wrong(f"it has {len(text)} characters, more than the {MAX_FILE_BYTES} a profile may have")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested brackets
        raise wrong(f"it is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise wrong(f"it is not an OmniCache profile (no format {FORMAT!r})")

    def part(owner: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
        value = owner.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise wrong(f"{key!r} is missing or has the wrong type")
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
            raise wrong(f"{key!r} is not a finite number, or beyond {MAX_NUMBER:g}")
        if isinstance(value, str) and not value.isprintable():  # it goes into logs and onto the node
            raise wrong(f"{key!r} holds characters that cannot be shown")
        return value

    version = part(document, "version", int)
    if version != VERSION:
        raise wrong(f"its version is {version}; this pack reads version {VERSION}")
    if document.get("band_edges") != list(BAND_EDGES):
        raise wrong(f"its band edges are not {list(BAND_EDGES)}, which this pack uses")

    number = (int, float)
    model, settings, columns = (part(document, key, dict) for key in ("model", "settings", "steps"))
    shape = part(settings, "latent_shape", list)
    if not 2 <= len(shape) <= 4 or not all(type(size) is int and 0 < size < 1 << 20 for size in shape):
        raise wrong("'latent_shape' is not 2 to 4 positive whole numbers")
    steps = len(part(columns, "sigmas", list))
    if not 2 <= steps <= MAX_STEPS:
        raise wrong(f"it has {steps} steps; 2 to {MAX_STEPS} are possible")
    bands = len(BAND_EDGES)

    def column(key: str, *sizes: int | None) -> Floats:
        values = part(columns, key, list)
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError):  # rows of different lengths, numbers of hundreds of digits
            raise wrong(f"{key!r} is not a table of numbers") from None
        if array.dtype.kind not in "iuf":
            raise wrong(f"{key!r} is not a table of numbers")
        array = array.astype(np.float64)
        fits = array.ndim == 1 + len(sizes) and len(array) == steps
        fits = fits and all(
            size is None or size == have for size, have in zip(sizes, array.shape[1:], strict=True)
        )
        if not fits:
            raise wrong(f"{key!r} has the shape {array.shape}; {steps} steps need {(steps, *sizes)}")
        if not (np.abs(array) <= MAX_NUMBER).all():
            raise wrong(f"{key!r} holds a number that is not finite, or beyond {MAX_NUMBER:g}")
        if key in NOT_NEGATIVE and (array < 0).any():
            raise wrong(f"{key!r} holds a negative number, which it cannot be")
        return array

    noise = column("noise", None, bands)
    ages = noise.shape[1]
    if not 2 <= ages <= MAX_AGE:
        raise wrong(f"it measured {ages} ages; 2 to {MAX_AGE} are possible")
    sigmas, final_sigma = column("sigmas"), float(part(document, "final_sigma", number))
    if not fall(np.append(sigmas, final_sigma)) or final_sigma < 0:
        raise wrong("its sigmas do not fall from step to step")
    trajectories = part(document, "trajectories", int)
    if not 1 <= trajectories <= MAX_TRAJECTORIES:
        raise wrong(f"'trajectories' is {trajectories}; 1 to {MAX_TRAJECTORIES} are possible")
    identity = ModelIdentity(*(part(model, field.name, str) for field in dataclasses.fields(ModelIdentity)))
    if identity.prediction not in PREDICTIONS:
        raise wrong(f"'prediction' is none of {', '.join(map(repr, PREDICTIONS))}")
    provenance = part(document, "provenance", dict)
    if not all(key.isprintable() for key in provenance):
        raise wrong("'provenance' holds characters that cannot be shown")
    return Profile(
        model=identity,
        settings=Settings(
            tuple(shape),
            part(settings, "sampler", str),
            part(settings, "scheduler", str),
            float(part(settings, "cfg", number)),
            float(part(settings, "denoise", number)),
        ),
        trajectories=trajectories,
        sigmas=sigmas,
        final_sigma=final_sigma,
        timesteps=column("timesteps"),
        turning=column("turning"),
        turning_squared=column("turning_squared"),
        menger=column("menger"),
        coordinates=column("coordinates", 3),
        explained=float(part(document, "explained", number)),
        output=column("output", bands),
        noise=noise,
        cross=column("cross", ages - 1, ages, bands),
        full_seconds=column("full_seconds"),
        reuse_seconds=column("reuse_seconds"),
        residual=column("residual") if "residual" in columns else np.zeros(steps),
        provenance={key: part(provenance, key, str) for key in provenance},
    )
