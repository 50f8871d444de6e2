"""Methods that decide while sampling which steps are reused, each in the place of a plan.

A pilot is made anew for each sampling run. The first call of a step asks it, as soon as the input of the
first block's attention is known (BranchTap.steer); the other calls of the step follow. The sources cache the
sum of all blocks behind the gates; here each branch is kept apart and gated anew with the present timestep.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from .plan import EVERYTHING, NOTHING, Parts

# Of degree 4, highest power first: relative change of the signal -> of the residual.
Polynomial = tuple[float, ...]

FLUX_POLYNOMIAL: Polynomial = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)
TYPICAL_MOTION = 0.385  # of Open-Sora's videos, by AdaCache's authors


class Pilot(ABC):
    """What a run asks of a plan, but answered step by step. Holds tensors of one layer's size until
    `forget`."""

    full: ClassVar[None] = None  # nobody knows before the run
    selections: ClassVar[frozenset[Parts]] = frozenset({EVERYTHING})
    refreshes: ClassVar[bool] = False

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._step = -1  # that was decided last
        self._is_reuse = False
        self._previous: Tensor | None = None

    def is_decided(self, step: int) -> bool:
        return step == self._step

    def is_reused(self, step: int) -> bool:
        """As decided; of other steps, whether they may be."""
        return self._is_reuse if self.is_decided(step) else 0 < step < self.steps

    def at(self, step: int) -> Parts:
        return EVERYTHING if self.is_reused(step) else NOTHING

    def decide(self, step: int, signal: Tensor) -> bool:
        """Whether this step is reused. signal: (rows, ..., width) what comes into the first attention."""
        self._step, self._is_reuse = step, self._wants_reuse(step, signal)
        return self._is_reuse

    @abstractmethod
    def show(self, step: int, output: Tensor, frames: int) -> None:
        """Sees what the middle block's attention gave at a step that is computed. output: (rows, ..., width),
        before its gate. frames: of a video; 1 for a picture."""

    def forget(self) -> None:
        self._previous = None

    @abstractmethod
    def _wants_reuse(self, step: int, signal: Tensor) -> bool: ...


class TeaCache(Pilot):
    """TeaCache (arXiv 2411.19108; github.com/ali-vilab/TeaCache): the change of the first block's modulated
    input from step to step, put through a polynomial that was fitted to tell the residual's change from it,
    is added up until it reaches a threshold; then a step is computed. The first and the last step are."""

    def __init__(self, steps: int, threshold: float, polynomial: Polynomial) -> None:
        super().__init__(steps)
        self._threshold = threshold
        self._polynomial = polynomial
        self._sum = 0.0

    def _wants_reuse(self, step: int, signal: Tensor) -> bool:
        previous, self._previous = self._previous, signal.clone()
        if 0 < step < self.steps - 1 and previous is not None and previous.shape == signal.shape:
            self._sum += float(np.polyval(self._polynomial, relative_change(previous, signal)))
            if self._sum < self._threshold:
                return True
        self._sum = 0.0
        return False

    def show(self, step: int, output: Tensor, frames: int) -> None:
        """Of no account here."""


class AdaCache(Pilot):
    """AdaCache (arXiv 2411.02397; github.com/AdaCache-DiT/AdaCache): after a computed step, the change of the
    middle block's attention output since the last one, for each step that it was cached, says in how many
    steps the next one comes. The first two and the last two steps are computed.

    The published book for 30 steps ("fast") is scaled to other numbers: the change of a step is smaller there
    and the steps more. The source sees the output behind its gate, here it is seen before.
    """

    BOOK = ((0.08, 6), (0.16, 5), (0.24, 4), (0.32, 3), (0.40, 2), (float("inf"), 1))  # change below: steps
    BOOK_STEPS = 30

    def __init__(self, steps: int, factor: float) -> None:
        """factor: on the book's thresholds."""
        super().__init__(steps)
        longer = steps / self.BOOK_STEPS
        self._book = [(bound / longer * factor, max(round(rate * longer), 1)) for bound, rate in self.BOOK]
        self._rate = 1
        self._next_full = 0

    def _wants_reuse(self, step: int, signal: Tensor) -> bool:
        return 2 <= step < min(self._next_full, self.steps - 2)

    def show(self, step: int, output: Tensor, frames: int) -> None:
        if self.is_reused(step):
            return  # computed only for want of a cache
        previous, self._previous = self._previous, output.clone()
        if previous is not None and previous.shape == output.shape:
            change = relative_change(previous, output) / self._rate
            change *= self._motion_weight(step, output, frames)
            rates = (rate for bound, rate in self._book if change < bound)
            self._rate = next(rates, self._book[-1][1])
        self._next_full = step + self._rate

    def _motion_weight(self, step: int, output: Tensor, frames: int) -> float:
        return 1.0


class MotionAdaCache(AdaCache):
    """AdaCache with motion regularisation (MoReg): the change weighs more where the frames of a video differ
    more, so that moving scenes are computed more often. Only from 10 to 90 % of the steps, as in the source;
    on a picture it is AdaCache."""

    POWER, OF_GRADIENT = 8, 10.0

    def __init__(self, steps: int, factor: float, typical_motion: float) -> None:
        super().__init__(steps, factor)
        self._typical = typical_motion
        self._motion = 1.0  # at the last computed step

    def _motion_weight(self, step: int, output: Tensor, frames: int) -> float:
        tokens = output.flatten(1, -2)  # (rows, tokens, width), frame by frame
        if frames < 2 or tokens.shape[1] % frames:
            return 1.0
        before, self._motion = self._motion, 1.0
        if 0.1 * self.steps <= step + 1 <= 0.9 * self.steps:
            self._motion = (motion_of(tokens.unflatten(1, (frames, -1))) / self._typical) ** self.POWER
        gradient = self.OF_GRADIENT * (self._motion - before) / self._rate
        return self._motion + abs(gradient)


def relative_change(old: Tensor, new: Tensor) -> float:
    """|new - old| / |old| by the sums of absolute values; NaN of nothing."""
    old, new = old.float(), new.float()
    return float((new - old).abs().sum() / old.abs().sum())


def motion_of(frames: Tensor) -> float:
    """How much neighbouring frames (rows, frames, tokens, width) differ: 0 not at all, 1 completely."""
    later, earlier = frames[:, 1:].float(), frames[:, :-1].float()
    return float((later - earlier).abs().sum() / (later.abs().sum() + earlier.abs().sum()))


def fit_polynomial(signal: Sequence[float], residual: Sequence[float]) -> tuple[Polynomial, float]:
    """TeaCache's polynomial from relative changes between neighbouring steps of uncached runs, and the share
    of the residual's variance that it explains (R^2)."""
    x, y = np.asarray(signal, dtype=np.float64), np.asarray(residual, dtype=np.float64)
    polynomial = np.polyfit(x, y, 4)
    left = y - np.polyval(polynomial, x)
    return tuple(polynomial.tolist()), 1 - float(left @ left / np.square(y - y.mean()).sum())
