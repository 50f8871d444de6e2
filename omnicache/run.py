"""One cached sampling run: decides for each evaluation whether it is full or reused, and keeps the lanes'
caches.

Created when sampling starts and closed when it ends; the only object that changes. Follow `evaluate`: it is
all that happens during sampling.
"""

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .correction import Corrector
from .drift import DriftGuard
from .forecast import Weights
from .lane import Cache, JoinedCaches, Lane, LaneKey, Rows, Signature, split_captured
from .plan import NOTHING, Parts, Plan
from .report import RunReport, StepKind
from .storage import Kept, Storage
from .tap import BlockTap, Captured, Forward


@dataclass(frozen=True)
class Call:
    """One call of the model by the host, about to happen.

    forward: makes the call; returns x0 estimates (rows, ...). without_control: the same without ControlNet
    outputs, if there are any; the host adds these in place to what blocks return, the last one too, so a
    cache of the whole stack holds them already. Both may be called more than once.
    x: (rows, ...) noisy input. sigma: (rows,). rows: what the equal parts of x are, in order, as the host
    names them.
    refusal: why nothing may be cached in this call, or None. writes_between: something writes into what
    blocks return at a reuse too.
    """

    forward: Forward
    x: Tensor
    sigma: Tensor
    rows: tuple[Hashable, ...]
    refusal: str | None = None
    without_control: Forward | None = None
    writes_between: bool = False

    def reuse_forward(self, tap: BlockTap) -> Forward:
        """What to run around what the tap replays."""
        return self.without_control if self.without_control and tap.holds_additions else self.forward

    def sigma_column(self) -> Tensor:
        """sigma shaped (rows, 1, ...) to multiply x."""
        return self.sigma.view(-1, *(1,) * (self.x.ndim - 1))


class StageCounter:
    """Names each evaluation's lane: the n-th evaluation of one row within a step is stage n."""

    def __init__(self) -> None:
        self._seen: Counter[Hashable] = Counter()

    def next_step(self) -> None:
        self._seen.clear()

    def next_key(self, row: Hashable) -> LaneKey:
        return LaneKey(row, self._seen[row])

    def keys(self, rows: tuple[Hashable, ...]) -> list[LaneKey]:
        keys = []
        for row in rows:
            keys.append(self.next_key(row))
            self._seen[row] += 1
        return keys


class CacheRun:
    """A sampling run with reuse, after a plan, corrected."""

    def __init__(
        self,
        plan: Plan,
        corrector: Corrector,
        tap: BlockTap,
        storage: Storage | None = None,
        guard: DriftGuard | None = None,
    ) -> None:
        self.tap = tap
        self._plan = plan
        self._corrector = corrector
        self._storage = storage or Storage()
        self._guard = guard
        self._needs_noise = corrector.correction.needs_noise
        self._generations = corrector.correction.generations
        self._step = 0
        self._parts = plan.at(0)  # what the current step reuses
        self._stages = StageCounter()
        self._lanes: dict[LaneKey, Lane] = {}
        self._report = RunReport(steps=plan.steps, planned_full=plan.full)
        self._step_kind: StepKind = "full"
        self._step_started = time.perf_counter()

    def evaluate(self, call: Call) -> Tensor:
        """Answers one call of the host: (rows, ...) x0 estimates, in full or from the caches."""
        if call.refusal is not None:
            self._count(call, "full", call.refusal)
            return call.forward()
        keys = self._stages.keys(call.rows)
        lanes = [self._lanes.setdefault(key, Lane()) for key in keys]
        signature = Signature.of(call.x, len(lanes))
        if self._parts == NOTHING:
            self._count(call, "full")
            return self._evaluate_fully(call, lanes, signature)
        missing = self._missing(lanes, signature)
        if missing is not None:
            self._count(call, "full", missing)
            return self._evaluate_fully(call, lanes, signature)
        self._count(call, "reuse")
        return self._reuse(call, lanes)

    def spares_control(self, rows: tuple[Hashable, ...], x: Tensor) -> bool:
        """Whether evaluating each of these rows at x would now be a reuse for which no ControlNet is needed.
        Changes nothing."""
        lanes = [self._lanes.get(self._stages.next_key(row)) for row in rows]
        return (
            self.tap.holds_additions
            and self._parts != NOTHING
            and None not in lanes
            and self._missing(lanes, Signature.of(x, 1)) is None
        )

    def step_finished(self, step: int) -> None:
        """The sampler has evaluated step number `step` and goes on to the next."""
        now = time.perf_counter()
        self._report.add_step(step, self._step_kind, now - self._step_started)
        self._parts = self._parts_after(step)
        self._step, self._step_started, self._step_kind = step + 1, now, "full"
        self._stages.next_step()

    def sampling_finished(self, samples: Tensor) -> None:
        """The sampler has gone through all its steps. samples: its result, in the model's latent space."""
        self._report.finished = True

    def close(self) -> RunReport:
        """Frees every tensor and returns the report of the run."""
        kept = [kept for lane in self._lanes.values() for kept in lane.kept()]
        if self._guard is not None:
            self._report.drift = self._guard.largest_ratio
        self._report.cache_bytes = sum({id(each): each.nbytes for each in kept}.values())
        self._lanes.clear()
        return self._report

    def _parts_after(self, step: int) -> Parts:
        """What the step after this one reuses: as planned, but no two in a row while the guard sees more
        noise than was calibrated."""
        planned = self._plan.at(step + 1)
        if self._guard is None or NOTHING in (planned, self._parts) or not self._guard.has_drifted():
            return planned
        self._report.drifted_steps += 1
        return NOTHING

    def _evaluate_fully(self, call: Call, lanes: list[Lane], signature: Signature) -> Tensor:
        denoised, captured = self.tap.capture(
            call.forward, self._storage.keep, late=call.without_control is not None
        )
        if captured is None:
            self._report.note("the model did not reach its blocks through the host's callbacks")
            return denoised
        noise = self._measure_noise(call, lanes, signature, denoised)
        noises = Rows.split(Kept.as_is(noise), len(lanes)) if noise is not None else [None] * len(lanes)
        caches = split_captured(captured, len(lanes))
        changes = self._changes(lanes, signature, captured, caches)
        for lane, cache, change, noise_part in zip(lanes, caches, changes, noises, strict=True):
            lane.refresh(signature, cache, change, self._step, noise_part)
            lane.forget_older(self._generations)
        return denoised

    def _changes(
        self, lanes: list[Lane], signature: Signature, captured: Captured, caches: list[Cache]
    ) -> list[Cache | None]:
        """For each lane, by how much what was captured differs from its cache; None where nothing is made of
        it."""
        goes_on = [lane.goes_on_with(signature, captured, self._step) for lane in lanes]
        if self._generations == 1 or not any(goes_on):
            return [None] * len(lanes)
        # Lanes without a cache are compared with what they have just captured, and forget it again.
        before = JoinedCaches(
            [lane.cache if known else own for lane, known, own in zip(lanes, goes_on, caches, strict=True)]
        )
        changes = [
            self._storage.keep_change(torch.sub(kept.whole(), old))
            for kept, old in zip(captured, before, strict=True)
        ]
        made = split_captured(changes, len(lanes))
        return [change if known else None for change, known in zip(made, goes_on, strict=True)]

    def _measure_noise(
        self, call: Call, lanes: list[Lane], signature: Signature, denoised: Tensor
    ) -> Tensor | None:
        """Runs the shadow beside a full evaluation (Eq. 6), if the next step will use what it measures, or
        the guard could forbid the one after that."""
        next_two = self._plan.is_reused(self._step + 1), self._plan.is_reused(self._step + 2)
        is_used = self._needs_noise and next_two[0]
        is_watched = self._guard is not None and all(next_two)
        if not (is_used or is_watched):
            return None
        if not all(lane.has_cache(signature) and lane.step < self._step for lane in lanes):
            return None
        shadow = self._replay(call, lanes, self._plan.at(self._step + 1), ())
        # x0 = x - sigma * output, so the outputs differ by minus the difference of the x0 over sigma.
        noise = torch.sub(denoised, shadow).div_(call.sigma_column())
        if is_watched:
            output = torch.sub(call.x, denoised).div_(call.sigma_column())
            self._guard.measure(self._step, lanes[0].step, noise, output)
        return noise.nan_to_num_(0.0, 0.0, 0.0) if is_used else None

    def _replay(self, call: Call, lanes: list[Lane], parts: Parts, weights: Sequence[Weights]) -> Tensor:
        caches, changes = [lane.cache for lane in lanes], [lane.changes for lane in lanes]
        cached = JoinedCaches(caches, changes, weights)
        return self.tap.replay(call.reuse_forward(self.tap), cached, parts, call.writes_between)

    def _missing(self, lanes: list[Lane], signature: Signature) -> str | None:
        """Why these lanes cannot reuse now, or None."""
        if any(lane.cache is None for lane in lanes):
            return "a conditioning came in without a cache"
        if not all(lane.has_cache(signature) for lane in lanes):
            return "the latent's shape, type or device changed"
        if self._needs_noise and any(lane.noise is None for lane in lanes):
            return "no noise was measured yet"
        if self._generations > 1 and any(len(lane.steps) < 2 for lane in lanes):
            return "there was one cache only, and a forecast needs two"
        return None

    def _reuse(self, call: Call, lanes: list[Lane]) -> Tensor:
        weights = [self._corrector.weights(self._step, lane.steps) for lane in lanes]
        denoised = self._replay(call, lanes, self._parts, weights)
        if not self._needs_noise:
            return denoised
        if len({(lane.step, lane.source_step) for lane in lanes}) == 1:
            noise = Rows.join([lane.noise for lane in lanes])
            return self._corrected(denoised, noise, call.sigma_column(), lanes[0])
        parts = zip(denoised.chunk(len(lanes)), call.sigma_column().chunk(len(lanes)), lanes, strict=True)
        return torch.cat(
            [self._corrected(part, lane.noise.view(), sigma, lane) for part, sigma, lane in parts]
        )

    def _corrected(self, denoised: Tensor, noise: Tensor, sigma: Tensor, lane: Lane) -> Tensor:
        gamma = self._corrector.gamma(self._step, lane.step, lane.source_step)
        if gamma.was_limited:
            self._report.limited_gammas += 1
        return self._corrector.apply(denoised, noise, gamma, sigma, self._step)

    def _count(self, call: Call, kind: StepKind, reason: str | None = None) -> None:
        self._report.count(kind, len(call.rows))
        if kind == "reuse":
            self._step_kind = "reuse"
        if reason is not None:
            self._report.note(reason)
