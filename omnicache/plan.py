"""Which steps are reused: the budget, the constraints, and the exact dynamic programme that meets both."""

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .families import BRANCH_KINDS, Branch, BranchKind

# cost(step, computed step before it, computed step before that, computed step after it): what reusing this
# step costs. Where none is computed after it, the last number is that of the steps.
StepCost = Callable[[int, int, int, int], float]

# The branches of each block of a model, in the order of the forward.
Layout = tuple[tuple[Branch, ...], ...]

MIN_STEPS = 8
AUTOMATIC = 0
AUTOMATIC_RUNS = (1, 2, 3, 4)  # longest runs to choose from
FIRST_FULL = 2  # a lane needs a cache, and then a measured noise, before anything can be reused and corrected


@dataclass(frozen=True)
class Budget:
    """How much to reuse. kind "reuse ratio": value is the share of steps reused, 0..1. "speed-up": value is
    the wanted wall-clock ratio, at least 1. "full steps": value is how many steps are computed."""

    kind: Literal["reuse ratio", "speed-up", "full steps"]
    value: float

    def __post_init__(self) -> None:
        low, high = {"reuse ratio": (0.0, 1.0), "speed-up": (1.0, 100.0), "full steps": (1.0, 10000.0)}[
            self.kind
        ]
        if not low <= self.value <= high:
            raise ValueError(
                f"budget: {self.value:g} is out of range; a {self.kind} lies between {low:g} and {high:g}."
            )
        if self.kind == "full steps" and self.value != round(self.value):
            raise ValueError(
                f"budget: {self.value:g} is no number of full steps. Take a whole number, or another "
                "budget_kind."
            )

    def reused_steps(self, steps: int, reuse_cost: float) -> int:
        """Steps to reuse out of so many. reuse_cost: time of a reuse evaluation over that of a full one."""
        if self.kind == "reuse ratio":
            return round(self.value * steps)
        if self.kind == "full steps":
            return max(steps - round(self.value), 0)
        if reuse_cost >= 1:
            raise ValueError(
                f"budget: a speed-up of {self.value:g} cannot be had, since by the profile a reused step "
                "takes as long as a computed one. Set budget_kind to 'reuse ratio'."
            )
        return int(np.ceil((1 - 1 / self.value) / (1 - reuse_cost) * steps - 1e-9))


@dataclass(frozen=True)
class Constraints:
    """max_consecutive: longest run of reused steps; AUTOMATIC lets `with_longest_run` choose. protect_first,
    protect_last: steps kept full at either end.
    full, reuse: steps the user forced, by number."""

    max_consecutive: int = AUTOMATIC
    protect_first: int = FIRST_FULL
    protect_last: int = 0
    full: frozenset[int] = frozenset()
    reuse: frozenset[int] = frozenset()

    def allowed(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Two masks over the steps: may be full, may be reused. Raises ValueError for contradicting
        overrides."""
        outside = [step for step in sorted(self.full | self.reuse) if not 0 <= step < steps]
        if outside:
            raise ValueError(
                f"overrides: step {outside[0]} does not exist; this run has steps 0 to {steps - 1}."
            )
        both = sorted(self.full & self.reuse)
        if both:
            raise ValueError(
                f"overrides: step {both[0]} is forced full and reused at once; keep one of the two."
            )
        too_early = [step for step in sorted(self.reuse) if step < FIRST_FULL]
        if too_early:
            raise ValueError(
                f"overrides: step {too_early[0]} cannot be reused, the first {FIRST_FULL} fill the cache."
            )
        may_reuse = np.ones(steps, dtype=bool)
        may_reuse[: max(self.protect_first, FIRST_FULL)] = False
        if self.protect_last:
            may_reuse[-self.protect_last :] = False
        may_reuse[sorted(self.full)] = False
        may_reuse[sorted(self.reuse)] = True
        may_be_full = np.ones(steps, dtype=bool)
        may_be_full[sorted(self.reuse)] = False
        return may_be_full, may_reuse

    def with_longest_run(self, steps: int, reused: int) -> "Constraints":
        """The same with a longest run of reused steps, if it is to be chosen: the shortest under which one
        step more could be reused, and that the forced steps fit into. Short runs are what can be corrected
        best, but where they leave only one plan, that one reuses the steps at the ends too."""
        if self.max_consecutive != AUTOMATIC:
            return self
        forced = min(self._longest_forced(), AUTOMATIC_RUNS[-1])
        lengths = [longest for longest in AUTOMATIC_RUNS if longest >= forced]
        choices = (replace(self.room, max_consecutive=longest) for longest in lengths)
        leaves_choice = (each.max_consecutive for each in choices if each.most_reused(steps) > reused)
        return replace(self, max_consecutive=next(leaves_choice, lengths[-1]))

    @property
    def room(self) -> "Constraints":
        """The same with the last step full: it may be reused, but not for the sake of shorter runs or of a
        larger budget."""
        return replace(self, protect_last=max(self.protect_last, 1))

    def _longest_forced(self) -> int:
        """How many steps in a row are forced to reuse, at most."""
        run = longest = 0
        for step in sorted(self.reuse):
            run = run + 1 if step - 1 in self.reuse else 1
            longest = max(longest, run)
        return longest

    def most_reused(self, steps: int) -> int:
        """How many steps could be reused at most."""
        run = count = 0
        for may_be_reused in self.allowed(steps)[1]:
            run = run + 1 if may_be_reused and run < self.max_consecutive else 0
            count += run > 0
        return count


NO_BLOCK, EVERY_BLOCK = range(0), range(sys.maxsize)


@dataclass(frozen=True)
class Parts:
    """What is reused of the model: for each kind of branch, the blocks by their position in the forward."""

    attention: range = NO_BLOCK
    cross_attention: range = NO_BLOCK
    mlp: range = NO_BLOCK

    def has(self, position: int, kinds: Iterable[BranchKind]) -> bool:
        """Whether what is all of these kinds at once is reused in this block."""
        return all(position in getattr(self, kind) for kind in kinds)

    @classmethod
    def parse(cls, text: str) -> "Parts":
        """From text such as "attention, mlp 4-20"; "all" is everything. Raises ValueError."""
        if text.strip() in ("", "all"):
            return EVERYTHING
        blocks: dict[str, range] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = re.fullmatch(
                r"(attention|cross-attention|mlp)(?:\s+(\d{1,4})(?:\s*-\s*(\d{1,4}))?)?", part
            )
            first, last = (int(match[2] or 0), int(match[3] or match[2] or 0)) if match else (0, 0)
            if match is None or match[1] in blocks or last < first:
                raise ValueError(
                    f"parts: {part!r} is not understood. Write 'all', or each of attention, cross-attention "
                    "and mlp at most once, with the blocks it is reused in counted from 0, such as "
                    "'attention, mlp 4-20'."
                )
            blocks[match[1]] = range(first, last + 1) if match[2] else EVERY_BLOCK
        return cls(*(blocks.get(kind.replace("_", "-"), NO_BLOCK) for kind in BRANCH_KINDS))


NOTHING = Parts()
EVERYTHING = Parts(EVERY_BLOCK, EVERY_BLOCK, EVERY_BLOCK)


@dataclass(frozen=True)
class Plan:
    """parts: what each step reuses; NOTHING where it is computed in full. Solved for one schedule of
    sigmas. refreshes: what a partly reused step computes replaces what is cached of it, so that the parts of
    a cache are of different ages."""

    parts: tuple[Parts, ...]
    refreshes: bool = False

    @classmethod
    def of(cls, reused: Sequence[bool], parts: Parts = EVERYTHING) -> "Plan":
        """The plan that reuses the same parts at some of the steps."""
        return cls(tuple(parts if step else NOTHING for step in reused))

    @property
    def reused(self) -> tuple[bool, ...]:
        """For each step whether it is reused."""
        return tuple(parts != NOTHING for parts in self.parts)

    @property
    def selections(self) -> frozenset[Parts]:
        """What any of the steps reuses."""
        return frozenset(self.parts) - {NOTHING}

    @property
    def steps(self) -> int:
        return len(self.parts)

    @property
    def full(self) -> int:
        return self.steps - sum(self.reused)

    def at(self, step: int) -> Parts:
        """NOTHING for steps beyond the schedule: a sampler that leaves it runs full."""
        return self.parts[step] if 0 <= step < self.steps else NOTHING

    def is_reused(self, step: int) -> bool:
        return self.at(step) != NOTHING

    def costs(self, cost: StepCost) -> list[float]:
        """What each reused step costs, in order."""
        full = [step for step, is_reused in enumerate(self.reused) if not is_reused]
        costs = []
        for (before, last), following in zip(itertools.pairwise(full), [*full[2:], self.steps], strict=True):
            costs += [cost(step, last, before, following) for step in range(last + 1, following)]
        return costs

    def speedup(self, reuse_cost: float) -> float:
        """Expected wall-clock ratio of the uncached run to this one."""
        return self.steps / (self.full + (self.steps - self.full) * reuse_cost)


def solve(
    steps: int, reused: int, constraints: Constraints, cost: StepCost, parts: Parts = EVERYTHING
) -> Plan:
    """The plan with exactly so many reused steps and the least sum of step costs.

    Exact, by dynamic programming over (full step, gap before it, steps reused so far): runs of reused steps
    are short, so a step's cost may depend on the two computed steps before it and on the one after. Raises
    ValueError if no plan meets the constraints.
    """
    constraints = constraints.with_longest_run(steps, reused)
    may_be_full, may_reuse = constraints.allowed(steps)
    if reused == 0 and not constraints.reuse:
        return Plan.of((False,) * steps)
    if steps < MIN_STEPS:
        raise ValueError(
            f"steps: {steps} are too few to reuse any; at least {MIN_STEPS} are needed. Use more steps, or "
            "connect the sampler to the model directly."
        )
    longest = constraints.max_consecutive + 1  # longest distance between two full steps
    # best[i][gap][k]: least cost with step i full, the full step before it `gap` steps earlier, k steps
    # reused.
    best = np.full((steps + 1, longest + 1, reused + 1), np.inf)
    came_from = np.zeros((steps + 1, longest + 1, reused + 1), dtype=np.int64)
    best[1, 1, 0] = 0.0
    for i in range(1, steps):
        for gap in range(1, longest + 1):
            reachable = best[i, gap]
            if not np.isfinite(reachable).any():
                continue
            for distance in range(1, min(longest, steps - i) + 1):
                end = i + distance
                if distance > 1 and not may_reuse[end - 1]:
                    break
                if (end < steps and not may_be_full[end]) or distance - 1 > reused:
                    continue
                segment = sum(cost(step, i, i - gap, end) for step in range(i + 1, end))
                candidate = np.full(reused + 1, np.inf)
                candidate[distance - 1 :] = reachable[: reused + 2 - distance] + segment
                better = candidate < best[end, distance]
                best[end, distance][better] = candidate[better]
                came_from[end, distance][better] = gap
    gap = int(best[steps, :, reused].argmin())
    if not np.isfinite(best[steps, gap, reused]):
        counts = np.flatnonzero(np.isfinite(best[steps]).any(axis=0))
        raise ValueError(_impossible(steps, reused, constraints, counts.tolist()))
    mask = np.ones(steps, dtype=bool)
    mask[0] = False
    end, left = steps, reused
    while end > 1:
        mask[end - gap + 1 : end] = True
        mask[end - gap] = False
        end, gap, left = end - gap, int(came_from[end, gap, left]), left - (gap - 1)
    return Plan.of(mask.tolist(), parts)


def _impossible(steps: int, reused: int, constraints: Constraints, counts: Iterable[int]) -> str:
    limits = (
        f"max_consecutive {constraints.max_consecutive}, protect_first "
        f"{max(constraints.protect_first, FIRST_FULL)}, protect_last {constraints.protect_last}"
    )
    if constraints.full or constraints.reuse:
        limits += f" and {len(constraints.full | constraints.reuse)} overrides"
    counts = list(counts)
    possible = f"up to {max(counts)} of {steps} steps" if any(counts) else "none"
    return (
        f"budget: {reused} of {steps} steps cannot be reused with {limits}; possible: {possible}. Lower "
        "the budget, raise max_consecutive or protect fewer steps."
    )
