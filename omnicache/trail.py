"""The outputs of one sampling run after guidance: what forecasts continue and repay compares."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .forecast import Weights

KEPT = 3  # computed outputs of each stage; a parabola goes through so many
# A sampler that never reports a step would fill the memory. Those of three evaluations a step are common, of
# more than eight unknown.
MOST_STAGES = 8
MOST_REUSED = 32


@dataclass(frozen=True)
class Known:
    """The output of a computed step, d = (x - denoised) / sigma, shaped as the latent. sigma: shaped to
    multiply it."""

    step: int
    output: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Reused:
    """The output that a reused step had in place of the model's."""

    step: int
    stage: int
    output: Tensor


class Trail:
    """One per sampling run. A stage is the ordinal of an evaluation between two reports of the sampler;
    each stage is continued by itself."""

    def __init__(self, keeps_reused: bool) -> None:
        """keeps_reused: for a run that repays."""
        self.step = 0
        self.stage = 0  # of the evaluation that comes next
        self.reused: list[Reused] = []
        self._keeps_reused = keeps_reused
        self._known: dict[int, list[Known]] = {}

    @property
    def steps(self) -> tuple[int, ...]:
        """The computed steps that the next evaluation can be continued from, newest first."""
        return self.steps_of(self.stage)

    def steps_of(self, stage: int) -> tuple[int, ...]:
        return tuple(known.step for known in self._known.get(stage, ()))

    def fits(self, x: Tensor) -> bool:
        """True if what is known is of this shape and on this device."""
        outputs = [known.output for of_stage in self._known.values() for known in of_stage[:1]]
        return all(each.shape == x.shape and each.device == x.device for each in outputs)

    def see(self, output: Tensor, sigma: Tensor, is_reused: bool) -> None:
        """Takes the output of an evaluation; the next one is of the next stage."""
        if not is_reused and self.stage < MOST_STAGES:
            known = self._known.setdefault(self.stage, [])
            known.insert(0, Known(self.step, output, sigma))
            del known[KEPT:]
        elif is_reused and self._keeps_reused:
            self.reused = [*self.reused, Reused(self.step, self.stage, output)][-MOST_REUSED:]
        self.stage += 1

    def next_step(self, step: int) -> None:
        """The sampler has reported step number `step`."""
        self.step, self.stage = step + 1, 0

    def combined(self, weights: Weights, stage: int | None = None) -> Tensor:
        """The sum of the last known outputs of a stage, newest first, each times its weight."""
        known = self._known[self.stage if stage is None else stage]
        total = known[0].output * weights[0]
        for weight, older in zip(weights[1:], known[1:], strict=False):
            total.add_(older.output, alpha=weight)
        return total

    def newest(self) -> Iterator[tuple[int, Known]]:
        """The last known output of each stage."""
        return ((stage, known[0]) for stage, known in self._known.items() if known)

    def replace_newest(self, stage: int, output: Tensor) -> None:
        last = self._known[stage][0]
        self._known[stage][0] = Known(last.step, output, last.sigma)

    def start_anew(self) -> None:
        """Forgets what is known: the outputs to come are not comparable with it."""
        self._known.clear()
        self.reused = []

    @property
    def nbytes(self) -> int:
        outputs = [known.output for of_stage in self._known.values() for known in of_stage]
        outputs += [each.output for each in self.reused]
        return sum(each.nbytes for each in outputs)


def as_column(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma, (rows,), shaped (rows, 1, ...) to multiply x, (rows, ...)."""
    return sigma.view(-1, *(1,) * (x.ndim - 1))


def output_of(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """d = (x - denoised) / sigma, in float32 or better. sigma: shaped to divide them."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.to(wide).sub(denoised).div_(sigma)
