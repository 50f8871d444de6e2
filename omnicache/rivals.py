"""The published methods that the pack is compared with, each by its own rule.

Nothing is solved here and no constraint of ours holds: a rival may reuse step 1 and the last step, and reuse
as long in a row as it says; only step 0 is always full. Each rule makes a plan, or a pilot that decides while
sampling, of a Sampling and one knob that trades quality for speed, and each is one row of RIVALS. Formulas
and constants only, from the papers and from what the authors' code does.

Not here: ToCa (arXiv 2410.05317). Of an MLP at a reused step it computes the tokens that received most
attention and have not been computed for long, and puts them into what is cached of the others. It would
need three things that whole branches do not: MLPs called on some of their tokens, a cache with an age for
each token, and attention's own weights at full steps, which fused attention does not give. Nor is T-GATE's
switching off of guidance, which is the sampler's. EasyCache and LazyCache are nodes of the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .correction import Correction, Mode
from .pilots import FLUX_POLYNOMIAL, TYPICAL_MOTION, AdaCache, MotionAdaCache, Pilot, Polynomial, TeaCache
from .plan import MIN_STEPS, Layout, Parts, Plan
from .profile import Floats, Profile
from .rival_measured import lemica_local, magcache, magcache_steps, minimax_path
from .rival_rules import Sampling, deepcache, delta_dit, even, fora, pab, t_gate, taylorseer
from .schedule import measured_reuse_cost

__all__ = ["RIVALS", "GivenSchedule", "Sampling", "magcache_steps", "minimax_path", "work"]

PLAIN_REUSE = Correction(mode="off")


def teacache(sampling: Sampling, threshold: float) -> TeaCache:
    """Published for Flux: threshold 0.25 to 0.8, with a polynomial of its own."""
    return TeaCache(sampling.steps, threshold, sampling.polynomial)


def adacache(sampling: Sampling, factor: float) -> AdaCache:
    """Published: the thresholds as they are, factor 1."""
    return AdaCache(sampling.steps, factor)


def adacache_moreg(sampling: Sampling, factor: float) -> MotionAdaCache:
    return MotionAdaCache(sampling.steps, factor, sampling.typical_motion)


class Knob(NamedTuple):
    """The one setting that trades quality for speed. tried: values that may reach a number of full steps,
    called with the steps and that number; none of a method that decides while sampling."""

    meaning: str
    published: float
    low: float
    high: float
    tried: Callable[[int, int], tuple[float, ...]] = lambda steps, full: ()


def _interval(published: float) -> Knob:
    return Knob("interval", published, 1.0, 100.0, lambda steps, full: tuple(map(float, range(1, steps))))


def _share(published: float) -> Knob:
    return Knob("share of full steps", published, 0.0, 1.0, lambda steps, full: (full / steps,))


_GATE = Knob("gate as a share of the steps", 0.6, 0.0, 1.0,
             lambda steps, full: tuple(gate / steps for gate in range(steps, 0, -1)))  # fmt: skip
# The published ones; the number of full steps depends little on it.
_OF_PAB = Knob("interval of attention", 2.0, 1.0, 100.0, lambda steps, full: (2.0, 3.0, 5.0))
_IN_A_ROW = Knob("longest run", 2.0, 0.0, 50.0, lambda steps, full: tuple(map(float, range(13))))


@dataclass(frozen=True)
class Rival:
    """A published method. needs_branches: it keeps branches apart. decides_while_sampling: its rule makes a
    pilot. correction: what goes with it."""

    rule: Callable[[Sampling, float], Plan | Pilot]
    knob: Knob
    needs_branches: bool = False
    needs_profile: bool = False
    decides_while_sampling: bool = False
    correction: Correction = PLAIN_REUSE


def _forecast(mode: Mode, order: int) -> Rival:
    return Rival(taylorseer, _interval(6.0), needs_branches=True, correction=Correction(mode, order=order))


def _piloted(rule: Callable[[Sampling, float], Pilot], meaning: str, published: float) -> Rival:
    knob = Knob(meaning, published, 0.0, 100.0)
    return Rival(rule, knob, needs_branches=True, decides_while_sampling=True)


RIVALS: dict[str, Rival] = {
    "even": Rival(even, _share(0.5)),
    "fora": Rival(fora, _interval(3.0), needs_branches=True),
    "delta-dit": Rival(delta_dit, _interval(2.0), needs_branches=True),
    "t-gate": Rival(t_gate, _GATE, needs_branches=True),
    "deepcache": Rival(deepcache, _interval(3.0), needs_branches=True),
    "magcache": Rival(magcache, _IN_A_ROW, needs_profile=True),
    "lemica-local": Rival(lemica_local, _share(0.5), needs_profile=True),
    "taylorseer-1": _forecast("taylor", 1),
    "taylorseer-2": _forecast("taylor", 2),
    "hicache-1": _forecast("hermite", 1),
    "hicache-2": _forecast("hermite", 2),
    "pab": Rival(pab, _OF_PAB, needs_branches=True),
    "teacache": _piloted(teacache, "threshold", 0.25),
    "adacache": _piloted(adacache, "factor on the thresholds", 1.0),
    "adacache-moreg": _piloted(adacache_moreg, "factor on the thresholds", 1.0),
}


@dataclass(frozen=True)
class GivenSchedule:
    """A schedule whose plan follows a published rule. knob: its setting, None for the published one.
    full_steps: takes the setting whose plan has most nearly so many full steps, in place of the knob; not for
    a method that decides while sampling. polynomial: TeaCache's, published for Flux (see
    pilots.fit_polynomial). typical_motion: of the videos that AdaCache's motion is compared with."""

    method: str
    knob: float | None = None
    full_steps: int | None = None
    profile: Profile | None = None
    polynomial: Polynomial = FLUX_POLYNOMIAL
    typical_motion: float = TYPICAL_MOTION

    def __post_init__(self) -> None:
        if self.method not in RIVALS:
            raise ValueError(f"method: {self.method!r} is unknown; there are {', '.join(RIVALS)}.")
        knob = self.rival.knob
        if self.knob is not None and not knob.low <= self.knob <= knob.high:
            raise ValueError(
                f"knob: {self.knob:g} is out of range; the {knob.meaning} of {self.method} lies between "
                f"{knob.low:g} and {knob.high:g}."
            )
        if self.full_steps is not None and self.rival.decides_while_sampling:
            raise ValueError(
                f"full_steps: {self.full_steps} cannot be met, {self.method} decides while sampling how many "
                f"there are. Set full_steps to 0 and knob to a {knob.meaning} (published: "
                f"{knob.published:g})."
            )
        if self.rival.needs_profile and self.profile is None:
            raise ValueError(
                f"profile: none is connected or picked, and {self.method} is measured by one. Connect a "
                "Trajectory Calibrator, pick a saved profile, or take another method."
            )

    @property
    def rival(self) -> Rival:
        return RIVALS[self.method]

    @property
    def default_correction(self) -> Correction:
        return self.rival.correction

    @property
    def why_branches(self) -> str:
        if not self.rival.needs_branches:
            return ""
        others = ", ".join(name for name, rival in RIVALS.items() if not rival.needs_branches)
        return (
            f"the method {self.method} keeps branches apart. Set granularity to 'branch', or take one of the "
            f"methods {others}."
        )

    @property
    def wants_reuse(self) -> bool:
        return True

    @property
    def is_guarded(self) -> bool:
        return False  # the plan is to be followed, whatever comes of it

    @property
    def shown_on(self) -> None:
        return None

    def reuse_cost(self) -> float:
        return measured_reuse_cost(self.profile)

    def plan_for(self, sigmas: Floats, layout: Layout = (), prediction: str | None = None) -> Plan | Pilot:
        """The rule's plan for a sampler's sigmas and a model, or its pilot for one run. Raises ValueError if
        it has none."""
        sampling = Sampling(
            np.asarray(sigmas, dtype=np.float64), layout, self.profile, self.polynomial, self.typical_motion
        )
        if sampling.steps < MIN_STEPS:
            raise ValueError(
                f"steps: {sampling.steps} are too few to reuse any; at least {MIN_STEPS} are needed. Use "
                "more steps, or connect the sampler to the model directly."
            )
        return self.rival.rule(sampling, self.setting_for(sampling))

    def setting_for(self, sampling: Sampling) -> float:
        """The value of the knob. To match a number of full steps, the plan of the nearest number; of two as
        near, the one that computes more."""
        if self.full_steps is None:
            return self.rival.knob.published if self.knob is None else self.knob

        def distance(value: float) -> tuple[float, float]:
            plan = self.rival.rule(sampling, value)
            return abs(plan.full - self.full_steps), -work(plan, sampling.layout)

        return min(self.rival.knob.tried(sampling.steps, self.full_steps), key=distance)


def work(plan: Plan, layout: Layout) -> float:
    """Share of all branches of all blocks that a plan computes, 0..1. Without a layout, share of full
    steps."""
    branches = [(position, branch) for position, block in enumerate(layout) for branch in block]
    if not branches:
        return plan.full / plan.steps

    def computed(parts: Parts) -> float:
        return sum(not parts.has(position, branch.kinds) for position, branch in branches) / len(branches)

    by_parts = {parts: computed(parts) for parts in set(plan.parts)}
    return sum(by_parts[parts] for parts in plan.parts) / plan.steps
