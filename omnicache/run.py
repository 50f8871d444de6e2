"""A cached sampling run in the blocks: decides for each call of the model whether it is full or reused, and
keeps the lanes' caches. Follow `evaluate`: it is all that happens during sampling.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from .branch_tap import BranchTap, Steering
from .correction import Corrector
from .drift import DriftGuard
from .lane import Cache, JoinedCaches, Lane, LaneKey, Rows, Signature, split_captured, split_renewed
from .pilots import Pilot
from .plan import NOTHING, Parts, Plan
from .repay import Repay
from .report import RunReport, StepKind
from .sampling_run import Asked, SamplingRun
from .storage import Kept, Storage
from .tap import BlockTap, Captured, Forward
from .trail import MOST_STAGES, as_column


@dataclass(frozen=True)
class Call:
    """One call of the model by the host, about to happen.

    forward: makes the call; returns x0 estimates (rows, ...). without_control: the same without ControlNet
    outputs, if there are any; the host adds these in place to what blocks return, the last one too, so a
    cache of the whole stack holds them already. Both may be called more than once.
    x: (rows, ...) noisy input. sigma: (rows,). rows: what the equal parts of x are, in order, as the host
    names them.
    refusal: why nothing may be cached in this call, or None. writes_between: something writes into what
    blocks return at a reuse too. beside: for each row what acts on it beside its conditioning (ControlNets,
    strengths of LoRA hooks), nothing if it is left out; where that changes a cache jumps, and says nothing of
    what comes behind.
    """

    forward: Forward
    x: Tensor
    sigma: Tensor
    rows: tuple[Hashable, ...]
    refusal: str | None = None
    without_control: Forward | None = None
    writes_between: bool = False
    beside: tuple[Hashable, ...] = ()

    def beside_each(self) -> tuple[Hashable, ...]:
        return self.beside or (None,) * len(self.rows)

    def reuse_forward(self, tap: BlockTap) -> Forward:
        """What to run around what the tap replays."""
        return self.without_control if self.without_control and tap.holds_additions else self.forward

    def sigma_column(self) -> Tensor:
        """sigma shaped (rows, 1, ...) to multiply x."""
        return as_column(self.sigma, self.x)


class StageCounter:
    """Names each evaluation's lane: the n-th evaluation of one row within a step is stage n. A sampler that
    does not say where its steps end would go on counting; such evaluations have no lane to keep anything
    in."""

    def __init__(self) -> None:
        self._seen: Counter[Hashable] = Counter()

    def next_step(self) -> None:
        self._seen.clear()

    def next_key(self, row: Hashable) -> LaneKey:
        return LaneKey(row, self._seen[row])

    def keys(self, rows: tuple[Hashable, ...]) -> list[LaneKey] | None:
        """None where a row has been evaluated too often in one step."""
        keys = []
        for row in rows:
            keys.append(self.next_key(row))
            self._seen[row] += 1
        return keys if all(key.stage < MOST_STAGES for key in keys) else None


class CacheRun(SamplingRun):
    """A sampling run with reuse of blocks, after a plan or as a pilot decides, corrected."""

    def __init__(
        self,
        plan: Plan | Pilot,
        corrector: Corrector,
        tap: BlockTap,
        storage: Storage | None = None,
        guard: DriftGuard | None = None,
        repay: Repay | None = None,
    ) -> None:
        """tap: a BranchTap for a pilot, and for a plan that names parts. Raises ValueError for a correction
        that the plan rules out."""
        if plan.refreshes and corrector.correction.is_on:
            raise ValueError(
                f"correction: mode {corrector.correction.mode!r} counts from the step that a cache is of, "
                "and with this schedule its parts are of different steps. Set mode to 'off', or connect no "
                "correction."
            )
        report = RunReport(
            steps=plan.steps,
            planned_full=plan.full,
            is_corrected=corrector.correction.is_on,
            profile=corrector.profile,
            granularity="branch" if isinstance(tap, BranchTap) else "stack",
        )
        super().__init__(plan, report, repay)
        self.tap = tap
        self._pilot = plan if isinstance(plan, Pilot) else None
        self._corrector = corrector
        self._storage = storage or Storage()
        self._guard = guard
        self._needs_noise = corrector.correction.needs_noise
        self._generations = corrector.correction.generations
        self._is_forbidden = False  # whether the guard does not let the current step be reused
        self._stages = StageCounter()
        self._lanes: dict[LaneKey, Lane] = {}
        self._last_full = -1  # the last step that was computed in full

    def predict(self, asked: Asked) -> Tensor:
        """Answers one evaluation of the sampler. Its calls of the model come to `evaluate`."""
        reused = self._report.evaluations_reused
        denoised = asked.forward()
        if self._repay is not None:
            self._see(asked, denoised, is_reused=self._report.evaluations_reused > reused)
        return denoised

    def evaluate(self, call: Call) -> Tensor:
        """Answers one call of the host: (rows, ...) x0 estimates, in full or from the caches."""
        self._watch.start(call.x.device)
        if call.refusal is not None:
            self._count(call, "full", call.refusal)
            return call.forward()
        keys = self._stages.keys(call.rows)
        if keys is None:
            self._count(call, "full", "the sampler does not say where its steps end")
            return call.forward()
        lanes = [self._lanes.setdefault(key, Lane()) for key in keys]
        signature = Signature.of(call.x, len(lanes))
        if self._pilot is not None and not self._pilot.is_decided(self._step):
            return self._evaluate_as_piloted(call, lanes, signature)
        if self._parts == NOTHING:
            self._count(call, "full")
            return self._evaluate_fully(call, lanes, signature)
        missing = self._missing(lanes, signature)
        if missing is not None:
            self._count(call, "full", missing)
            return self._evaluate_fully(call, lanes, signature)
        self._count(call, "reuse")
        return self._corrected(self._reuse(call, lanes), call, lanes)

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

    def step_finished(self, step: int) -> RunReport:
        if self._step_kind == "full" and any(lane.step == step for lane in self._lanes.values()):
            self._last_full = step
            self._note_size()  # before something is freed; between two such steps nothing is
            self._lanes = {key: lane for key, lane in self._lanes.items() if not self._is_stale(lane)}
        self._is_forbidden = self._is_forbidden_after(step)
        self._stages.next_step()
        return super().step_finished(step)

    def close(self) -> RunReport:
        if self._guard is not None:
            self._report.drift = self._guard.largest_ratio
        self._note_size()
        self._lanes.clear()
        if self._pilot is not None:
            self._pilot.forget()
        return super().close()

    def _note_size(self) -> None:
        kept = [kept for lane in self._lanes.values() for kept in lane.kept()]
        size = sum({id(each): each.nbytes for each in kept}.values())
        self._report.cache_bytes = max(self._report.cache_bytes, size)

    def _is_stale(self, lane: Lane) -> bool:
        """Whether its cache was left over when all others were made anew: of a context window that has moved
        on, or of a conditioning that is out of its range of timesteps."""
        return lane.step < self._last_full

    @property
    def _parts(self) -> Parts:
        """What the current step reuses."""
        return NOTHING if self._is_forbidden else self._plan.at(self._step)

    def _is_forbidden_after(self, step: int) -> bool:
        """Whether the next step must be computed though it was to be reused: no two in a row are while the
        guard sees more noise than was calibrated."""
        if self._guard is None or NOTHING in (self._parts, self._plan.at(step + 1)):
            return False
        if not self._guard.has_drifted():
            return False
        self._report.drifted_steps += 1
        return True

    def _evaluate_as_piloted(self, call: Call, lanes: list[Lane], signature: Signature) -> Tensor:
        """The first call of a step, in which the pilot decides for all of them by the first lane's rows."""
        pilot, missing = self._pilot, self._missing(lanes, signature)
        rows, frames = signature.shape[0], call.x.shape[2] if call.x.ndim == 5 else 1
        steering = Steering(
            asks=lambda signal: pilot.decide(self._step, signal[:rows]) and missing is None,
            shows=lambda output: pilot.show(self._step, output[:rows], frames),
        )
        cached = self._joined(lanes) if missing is None else ()
        denoised, captured = self.tap.steer(call.forward, cached, self._storage.keep, steering)
        if missing is None and pilot.is_decided(self._step) and pilot.is_reused(self._step):
            self._count(call, "reuse")
            return self._corrected(denoised, call, lanes)
        self._count(call, "full", missing if pilot.is_reused(self._step) else None)
        return self._keep(call, lanes, signature, denoised, captured)

    def _evaluate_fully(self, call: Call, lanes: list[Lane], signature: Signature) -> Tensor:
        denoised, captured = self.tap.capture(
            call.forward, self._storage.keep, late=call.without_control is not None
        )
        return self._keep(call, lanes, signature, denoised, captured)

    def _keep(
        self,
        call: Call,
        lanes: list[Lane],
        signature: Signature,
        denoised: Tensor,
        captured: Captured | None,
    ) -> Tensor:
        """Gives the lanes what a full evaluation left, and hands on what it gave."""
        if captured is None:
            self._report.note("the model did not reach its blocks through the host's callbacks")
            return denoised
        noise = self._measure_noise(call, lanes, signature, denoised)
        noises = Rows.split(Kept.as_is(noise), len(lanes)) if noise is not None else [None] * len(lanes)
        caches = split_captured(captured, len(lanes))
        changes = self._changes(call, lanes, signature, captured, caches)
        left = zip(lanes, caches, changes, noises, call.beside_each(), strict=True)
        for lane, cache, change, noise_part, beside in left:
            lane.refresh(signature, cache, change, self._step, noise_part, beside)
            lane.forget_older(self._generations)
        return denoised

    def _changes(
        self,
        call: Call,
        lanes: list[Lane],
        signature: Signature,
        captured: Captured,
        caches: list[Cache],
    ) -> list[Cache | None]:
        """For each lane, by how much what was captured differs from its cache; None where nothing is made of
        it."""
        goes_on = [
            lane.goes_on_with(signature, captured, self._step, beside)
            for lane, beside in zip(lanes, call.beside_each(), strict=True)
        ]
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
        if [lane.beside for lane in lanes] != list(call.beside_each()):
            return None  # it would be the jump
        cached, parts = self._joined(lanes, is_continued=False), self._plan.at(self._step + 1)
        shadow = self.tap.replay(call.reuse_forward(self.tap), cached, parts, call.writes_between)
        # x0 = x - sigma * output, so the outputs differ by minus the difference of the x0 over sigma.
        noise = torch.sub(denoised, shadow).div_(call.sigma_column())
        if is_watched:
            output = torch.sub(call.x, denoised).div_(call.sigma_column())
            self._guard.measure(self._step, lanes[0].step, noise, output)
        return noise.nan_to_num_(0.0, 0.0, 0.0) if is_used else None

    def _joined(self, lanes: list[Lane], is_continued: bool = True) -> JoinedCaches:
        """The lanes' caches, continued to this step as the correction says, or as they are."""
        weights = [self._corrector.weights(self._step, lane.steps) for lane in lanes] if is_continued else ()
        return JoinedCaches([lane.cache for lane in lanes], [lane.changes for lane in lanes], weights)

    def _missing(self, lanes: list[Lane], signature: Signature) -> str | None:
        """Why these lanes cannot reuse now, or None."""
        if any(lane.cache is None for lane in lanes):
            return "a conditioning came in without a cache"
        if not all(lane.has_cache(signature) for lane in lanes):
            return "the latent's shape, type or device changed"
        if any(self._is_stale(lane) for lane in lanes):
            return "a conditioning or context window came back after a full step without it"
        if self._needs_noise and any(lane.noise is None for lane in lanes):
            return "no noise was measured yet"
        if self._corrector.correction.needs_two_caches and any(len(lane.steps) < 2 for lane in lanes):
            return "there was one cache only, and a forecast needs two"
        return None

    def _reuse(self, call: Call, lanes: list[Lane]) -> Tensor:
        forward, cached, parts = call.reuse_forward(self.tap), self._joined(lanes), self._parts
        if not self._plan.refreshes:
            return self.tap.replay(forward, cached, parts, call.writes_between)
        denoised, renewed = self.tap.refresh(forward, cached, parts, self._storage.keep)
        for lane, own in zip(lanes, split_renewed(renewed, len(lanes)), strict=True):
            lane.renew(own)
        return denoised

    def _corrected(self, denoised: Tensor, call: Call, lanes: list[Lane]) -> Tensor:
        """What a reuse evaluation gave, less the noise predicted from the lanes' last full ones."""
        if not self._needs_noise:
            return denoised
        if len({(lane.step, lane.source_step) for lane in lanes}) == 1:
            noise = Rows.join([lane.noise for lane in lanes])
            return self._less_noise(denoised, noise, call.sigma_column(), lanes[0])
        parts = zip(denoised.chunk(len(lanes)), call.sigma_column().chunk(len(lanes)), lanes, strict=True)
        return torch.cat(
            [self._less_noise(part, lane.noise.view(), sigma, lane) for part, sigma, lane in parts]
        )

    def _less_noise(self, denoised: Tensor, noise: Tensor, sigma: Tensor, lane: Lane) -> Tensor:
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
