"""The published methods that the pack is compared with, as plans given by their own rules.

Nothing is solved here and no constraint of ours holds: a rival may reuse step 1 and the last step, and reuse
as long in a row as it says; only step 0 is always full. Each rule is a function of a Sampling and one knob
that trades quality for speed, and each is one row of RIVALS. Formulas and constants only, from the papers
and from what the authors' code does.

Not here, for a plan cannot hold them: PAB (branches computed at a partly reused step would have to refresh
their caches), ToCa (recomputes single tokens), AdaCache and TeaCache (decide while sampling), T-GATE's
switching off of guidance. EasyCache and LazyCache are nodes of the host.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .correction import Correction
from .outlook import Outlook
from .plan import EVERY_BLOCK, EVERYTHING, MIN_STEPS, NOTHING, Layout, Parts, Plan
from .profile import Floats, Profile
from .schedule import measured_reuse_cost

PLAIN_REUSE = Correction(mode="off")


@dataclass(frozen=True)
class Sampling:
    """What a rule is applied to. sigmas: (steps + 1,). layout: the branches of each block of the model.
    profile: what was measured, for the rules that are measured."""

    sigmas: Floats
    layout: Layout = ()
    profile: Profile | None = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def blocks(self) -> int:
        return len(self.layout)

    def outlook(self) -> Outlook:
        if self.profile is None:
            raise ValueError(
                "profile: none is connected or picked, and this method is measured by one. Connect a "
                "TrajectoryCalibrator, or pick a saved profile."
            )
        return Outlook(self.profile, self.sigmas)


def even(sampling: Sampling, share: float) -> Plan:
    """As many full steps as the share says, evenly spread, the first and the last among them: what every
    cadence becomes when it must meet a budget exactly."""
    full = max(round(share * sampling.steps), 2)
    return _reuse_between({round(i * (sampling.steps - 1) / (full - 1)) for i in range(full)}, sampling)


def fora(sampling: Sampling, interval: float) -> Plan:
    """FORA (arXiv 2407.01425; github.com/prathebaselva/FORA): every attention and MLP output, before its
    gate, at a fixed cadence. The code counts steps down, so the last one is always full and the first gap
    may be shorter. Published: interval 3."""
    last = sampling.steps - 1
    return _reuse_between({0, *(s for s in range(last + 1) if (last - s) % round(interval) == 0)}, sampling)


def delta_dit(sampling: Sampling, interval: float) -> Plan:
    """Delta-DiT (arXiv 2406.01125; no code was published): at a fixed cadence a span of blocks is reused,
    at the rear in the first 60 % of the steps (b = 12 of 20), at the front after them.

    The span is 21 of 28 blocks and the front one starts behind block 0. In a model with few blocks both
    would be the same; the span then is 60 % of the blocks and, if need be, starts at block 0. Ours adds each
    branch behind its present gate, where the paper adds the span's whole difference. Published: interval 2.
    """
    blocks, switch = sampling.blocks, round(0.6 * sampling.steps)
    span = round(0.75 * blocks)
    if 1 + span > blocks - 1:
        span = max(round(0.6 * blocks), 1)
    start = 1 if 1 + span <= blocks - 1 else 0
    rear, front = _blocks(blocks - span, blocks), _blocks(start, start + span)
    return Plan(
        tuple(
            NOTHING if step % round(interval) == 0 else rear if step < switch else front
            for step in range(sampling.steps)
        )
    )


def deepcache(sampling: Sampling, interval: float) -> Plan:
    """DeepCache's idea (arXiv 2312.00858; github.com/horseee/DeepCache) carried over to a transformer, which
    has no skips of a U-Net: all but the first and the last block are reused at a fixed cadence. A transfer,
    not the source's method. Published: interval 3."""
    middle = _blocks(1, sampling.blocks - 1)
    return Plan(tuple(NOTHING if step % round(interval) == 0 else middle for step in range(sampling.steps)))


def t_gate(sampling: Sampling, gate: float) -> Plan:
    """T-GATE (arXiv 2404.02747; github.com/HaozheLiu-ST/T-GATE) as far as a plan goes: cross-attention is
    computed until the gate step and reused from then on; before it, self-attention is reused but at each
    third step. MLPs are never reused. Published for transformers: gate 15 of 25 steps, interval 3, warm-up 2.

    Missing: behind the gate the source also drops guidance, which is most of its saving and changes the
    picture by design, and reuses the mean over both prompts where a plan reuses each prompt's own.
    """
    interval, warm_up = 3, 2
    last_computed = max(round(gate * sampling.steps), 1) - 1
    attention, cross = Parts(attention=EVERY_BLOCK), Parts(cross_attention=EVERY_BLOCK)
    parts = []
    for step in range(sampling.steps):
        if step > last_computed:
            parts.append(cross)
        else:
            is_computed = step <= warm_up or step % interval == 0 or step == last_computed
            parts.append(NOTHING if is_computed else attention)
    return Plan(tuple(_in_model(each, sampling.layout) for each in parts))


def magcache(sampling: Sampling, longest: float) -> Plan:
    """MagCache (arXiv 2506.09045; github.com/Zehong-Ma/MagCache): the residual is reused until the summed
    distance of its magnitude's expected product of ratios from 1 reaches a threshold, or for so many steps.
    The first 20 % of the steps are full. Published: at most 2 (threshold 0.12), 4 (0.12) and 6 (0.24) in a
    row; the threshold here is 0.12 up to 4 and 0.24 beyond.

    The source averages the ratio over tokens; ours is the ratio of the whole residuals' norms, from the
    profile, read at the sampler's own sigmas.
    """
    ratios = magnitude_ratios(sampling.outlook(), sampling.profile)
    return _reuse_between(magcache_steps(ratios, 0.12 if longest <= 4 else 0.24, round(longest)), sampling)


def magcache_steps(
    ratios: Iterable[float], threshold: float, longest: int, retention: float = 0.2
) -> set[int]:
    """MagCache's full steps. ratios: |R| of each step over that of the step before (paper, Eqs. 6-10)."""
    ratios = list(ratios)
    first = max(int(retention * len(ratios)), 1)
    full, product, count, error = set(range(first)), 1.0, 0, 0.0
    for step in range(first, len(ratios)):
        product, count = product * ratios[step], count + 1
        error += abs(1 - product)
        if not (error < threshold and count <= longest):
            full.add(step)
            product, count, error = 1.0, 0, 0.0
    return full


def magnitude_ratios(outlook: Outlook, profile: Profile) -> Floats:
    """(steps,) norm of the residual at each of a run's steps over that at the step before; 1 at step 0."""
    if not profile.residual.all():
        raise ValueError(
            "profile: it was measured before residuals were, and MagCache needs their magnitudes. Calibrate "
            "again, or take another method."
        )
    logs = outlook.at_steps(np.log(profile.residual) / 2)
    return np.exp(np.diff(logs, prepend=logs[0]))


def lemica_local(sampling: Sampling, share: float) -> Plan:
    """LeMiCa (arXiv 2511.00090; github.com/UnicomAI/LeMiCa): of all ways to place so many full steps, at most
    7 apart, the one whose largest error of a run of reused steps is least, then whose second largest is, and
    so on. Published: lists of 26 and 15 of 50 steps for Flux, which this rule made from measured errors.

    The source measures a run's error at the end of sampling, by sampling once for each possible run. Here it
    is the profile's error of each reused step times its length in sigma, summed over the run; caches older
    than calibrated ones are taken to grow worse in proportion to their distance in sigma. How errors grow
    until the end is missing, and with it the source's many full steps early: hence "local".
    """
    full = max(round(share * sampling.steps), math.ceil((sampling.steps - 1) / _LEMICA_SPAN) + 1)
    errors = _run_errors(sampling)
    return _reuse_between(minimax_path(errors, full, _LEMICA_SPAN), sampling)


_LEMICA_SPAN = 7  # longest distance between full steps in the published lists; the text gives none


def minimax_path(errors: Floats, full: int, longest: int) -> set[int]:
    """The nodes of the path from the first to the last step with exactly so many nodes whose errors, sorted
    from the largest down, come first in lexical order (LeMiCa, Eq. 5).

    errors: (steps, steps), errors[i, j] of reusing step i's cache until step j; those of neighbours count 0.
    Exact: adding the same error to two sorted lists of equal length keeps their order, so the best list for
    each step and count is enough.
    """
    steps = len(errors)
    best: list[dict[int, tuple[tuple[float, ...], int]]] = [{} for _ in range(steps)]
    best[0][1] = ((), -1)
    for step in range(1, steps):
        for earlier in range(max(step - longest, 0), step):
            error = float(errors[earlier, step]) if step > earlier + 1 else 0.0
            for count, (list_, _) in best[earlier].items():
                candidate = tuple(sorted((*list_, error), reverse=True))
                if count < full and (count + 1 not in best[step] or candidate < best[step][count + 1][0]):
                    best[step][count + 1] = (candidate, earlier)
    if full not in best[-1]:
        raise ValueError(
            f"knob: {full} full steps cannot lead through {steps} steps at most {longest} apart. Raise the "
            "share of full steps."
        )
    path, step = set(), steps - 1
    for count in range(full, 0, -1):
        path.add(step)
        step = best[step][count][1]
    return path


def _run_errors(sampling: Sampling) -> Floats:
    """(steps, steps) expected displacement of the sample by reusing step i's cache until before step j."""
    outlook, sigmas, steps = sampling.outlook(), sampling.sigmas, sampling.steps
    ages = sampling.profile.ages
    errors = np.zeros((steps, steps))
    for cached in range(steps):
        for step in range(cached + 1, min(cached + _LEMICA_SPAN, steps)):
            known = max(cached, step - ages) if outlook.is_exact else cached
            noise = outlook.noise(step, known) * (sigmas[cached] - sigmas[step])
            noise *= (sigmas[step] - sigmas[step + 1]) / (sigmas[known] - sigmas[step])
            if step + 1 < steps:
                errors[cached, step + 1] = errors[cached, step] + noise
    return errors


class Knob(NamedTuple):
    """The one setting that trades quality for speed. tried: values that may reach a number of full steps,
    called with the steps and that number."""

    meaning: str
    published: float
    low: float
    high: float
    tried: Callable[[int, int], tuple[float, ...]]


def _interval(published: float) -> Knob:
    return Knob("interval", published, 1.0, 100.0, lambda steps, full: tuple(map(float, range(1, steps))))


def _share(published: float) -> Knob:
    return Knob("share of full steps", published, 0.0, 1.0, lambda steps, full: (full / steps,))


_GATE = Knob("gate as a share of the steps", 0.6, 0.0, 1.0,
             lambda steps, full: tuple(gate / steps for gate in range(steps, 0, -1)))  # fmt: skip
_IN_A_ROW = Knob("longest run", 2.0, 0.0, 50.0, lambda steps, full: tuple(map(float, range(13))))


@dataclass(frozen=True)
class Rival:
    """A published method. needs_branches: it keeps branches apart. correction: what goes with it; the
    methods here reuse plainly, one that forecasts would name its own."""

    rule: Callable[[Sampling, float], Plan]
    knob: Knob
    needs_branches: bool = False
    needs_profile: bool = False
    correction: Correction = PLAIN_REUSE


RIVALS: dict[str, Rival] = {
    "even": Rival(even, _share(0.5)),
    "fora": Rival(fora, _interval(3.0), needs_branches=True),
    "delta-dit": Rival(delta_dit, _interval(2.0), needs_branches=True),
    "t-gate": Rival(t_gate, _GATE, needs_branches=True),
    "deepcache": Rival(deepcache, _interval(3.0), needs_branches=True),
    "magcache": Rival(magcache, _IN_A_ROW, needs_profile=True),
    "lemica-local": Rival(lemica_local, _share(0.5), needs_profile=True),
}


@dataclass(frozen=True)
class GivenSchedule:
    """A schedule whose plan follows a published rule. knob: its setting, None for the published one.
    full_steps: takes the setting whose plan has most nearly so many full steps, in place of the knob."""

    method: str
    knob: float | None = None
    full_steps: int | None = None
    profile: Profile | None = None

    def __post_init__(self) -> None:
        if self.method not in RIVALS:
            raise ValueError(f"method: {self.method!r} is unknown; there are {', '.join(RIVALS)}.")
        knob = self.rival.knob
        if self.knob is not None and not knob.low <= self.knob <= knob.high:
            raise ValueError(
                f"knob: {self.knob:g} is out of range; the {knob.meaning} of {self.method} lies between "
                f"{knob.low:g} and {knob.high:g}."
            )
        if self.rival.needs_profile and self.profile is None:
            raise ValueError(
                f"profile: none is connected or picked, and {self.method} is measured by one. Connect a "
                "TrajectoryCalibrator, pick a saved profile, or take another method."
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

    def reuse_cost(self) -> float:
        return measured_reuse_cost(self.profile)

    def plan_for(self, sigmas: Floats, layout: Layout = ()) -> Plan:
        """The rule's plan for a sampler's sigmas and a model. Raises ValueError if it has none."""
        sampling = Sampling(np.asarray(sigmas, dtype=np.float64), layout, self.profile)
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


def _reuse_between(full: set[int], sampling: Sampling) -> Plan:
    return Plan.of([step not in full for step in range(sampling.steps)], EVERYTHING)


def _blocks(start: int, end: int) -> Parts:
    """All branches of these blocks."""
    blocks = range(max(start, 0), max(end, 0))
    return Parts(blocks, blocks, blocks) if len(blocks) else NOTHING


def _in_model(parts: Parts, layout: Layout) -> Parts:
    """NOTHING if the model has none of these parts: such a step is full."""
    has_any = any(
        parts.has(position, branch.kinds) for position, block in enumerate(layout) for branch in block
    )
    return parts if has_any else NOTHING
