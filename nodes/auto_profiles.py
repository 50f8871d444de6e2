"""The profiles that OmniCache Auto measures and finds again: what a setting is, and which profile serves
it."""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..omnicache.outlook import Outlook
from ..omnicache.profile import ModelIdentity, Profile
from . import library
from .host import Sampling
from .identity import identity_of
from .samplers import amplifies, draws_noise

# A profile serves a run if most of the run's steps lie within its noise levels, and are neither much finer
# nor much coarser: the noise of a cache is then read at ages that were measured.
LEAST_COVERED = 0.8
MOST_FINER_OR_COARSER = 2.5


@dataclass(frozen=True)
class Setting:
    """What must be the same for a profile to serve: the model with its patches, the kind of sampler and the
    size class. The noise levels may differ."""

    model: ModelIdentity
    sampler: str
    latent_shape: tuple[int, ...]

    @classmethod
    def of(cls, sampling: Sampling) -> "Setting":
        return cls(identity_of(sampling.model), sampling.sampler, sampling.latent_shape)

    @property
    def key(self) -> str:
        """In the file names of all profiles of this model and size class."""
        return _hash(self.model.architecture, self.model.weights, self.model.prediction, *self._size_class())

    def stem(self, sigmas: list[float]) -> str:
        """File name of the profile measured at these sigmas."""
        # A sampler of another pack may be called <lambda>, or nothing.
        sampler = re.sub(r"\W", "", self.sampler)[:40] or "sampler"
        levels = _hash(*(f"{sigma:.5g}" for sigma in sigmas))
        return f"{self.model.family} {sampler} {len(sigmas) - 1} steps {self.key}-{levels}"

    def is_served_by(self, profile: Profile, outlook: Outlook) -> bool:
        """outlook: of the profile, at the sigmas of the run."""
        other = Setting(profile.model, profile.settings.sampler, profile.settings.latent_shape)
        return (
            other.model == self.model
            and other._size_class() == self._size_class()
            and are_of_one_kind(other.sampler, self.sampler)
            and outlook.covers() >= LEAST_COVERED
            and abs(math.log(outlook.fineness())) <= math.log(MOST_FINER_OR_COARSER)
        )

    def _size_class(self) -> tuple[int, int]:
        """Axes of the latent, and its pixels as the nearest power of two."""
        return len(self.latent_shape), round(math.log2(math.prod(self.latent_shape[1:])))


def are_of_one_kind(sampler: str, other: str) -> bool:
    """Whether a profile calibrated with one of them tells what to expect of the other."""
    return sampler == other or not any(amplifies(name) or draws_noise(name) for name in (sampler, other))


class Shelf:
    """Where the profiles are: in the subfolder of models/omnicache, and in memory those that could not be
    written there, and which settings are to be measured anew.

    What is in memory is kept for as long as the process lives, and by the module, because no other place
    outlives a prompt: the host makes the node and its output anew when any of its inputs changes.
    """

    MOST_UNSAVED = 16  # a few hundred kilobytes each

    def __init__(self) -> None:
        # Replaced, never changed: there may be threads.
        self._unsaved: tuple[Profile, ...] = ()  # oldest first
        self._doubted: frozenset[str] = frozenset()  # stems of settings to be measured anew
        self._renewed: frozenset[str] = frozenset()  # and of those that were

    def find(self, setting: Setting, sigmas: list[float]) -> tuple[Profile | None, list[str]]:
        """The profile that serves a setting at these sigmas best, and what is wrong with files that could not
        be read."""
        if setting.stem(sigmas) in self._doubted:
            return None, ["the earlier profile, which foretold too little error"]
        profiles, wrong = [], []
        for name in library.automatic_names(f" {setting.key}-"):
            try:
                profiles.append(library.load(name))
            except ValueError as error:
                wrong.append(str(error).split(". ")[0])
        return best([*profiles, *self._unsaved], setting, sigmas), wrong

    def doubt(self, setting: Setting, sigmas: list[float]) -> str:
        """The profile that served this run foretold too little noise. Has the next run at these sigmas
        measured anew, once: with prompts of several kinds there would be no end to it. Says what comes of
        it."""
        stem = setting.stem(sigmas)
        if stem in self._renewed:
            return "take a budget nearer to quality if the picture suffers"
        self._doubted |= {stem}
        return "the next run at this setting is measured anew, in full quality"

    def keep(self, profile: Profile, setting: Setting, sigmas: list[float]) -> str:
        """Saves a profile, or remembers it, and says which."""
        profile = Profile.from_json(profile.to_json(), "just measured")  # what is written can be read again
        stem = setting.stem(sigmas)
        if stem in self._doubted:
            self._doubted -= {stem}
            self._renewed |= {stem}
        try:
            return f"saved as {library.save_automatic(profile, stem)}"
        except OSError as error:
            self._unsaved = (*self._unsaved, profile)[-self.MOST_UNSAVED :]
            return f"kept until ComfyUI ends, because it could not be saved: {error}"


def best(profiles: Iterable[Profile], setting: Setting, sigmas: list[float]) -> Profile | None:
    """The profile that serves a setting best, if any does: of the same sampler, of the same sigmas, of the
    most nearly as many steps; of several such the last."""
    served = []
    for profile in profiles:
        outlook = Outlook(profile, np.array(sigmas))
        if setting.is_served_by(profile, outlook):
            is_same = profile.settings.sampler == setting.sampler
            served.append((is_same, outlook.is_exact, -abs(math.log(outlook.fineness())), profile))
    return max(reversed(served), key=lambda entry: entry[:3])[3] if served else None


def _hash(*parts: object) -> str:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:8]
