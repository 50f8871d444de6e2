"""What all cached sampling runs have in common: the step they are at, their report, their times, and repay.

Created when sampling starts and closed when it ends; the only object that changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import Tensor

from .pilots import Pilot
from .plan import Plan
from .reading import Readings, energies
from .repay import Repay
from .report import RunReport, StepKind
from .response import Held
from .stopwatch import Stopwatch
from .trail import Trail, as_column, output_of


@dataclass(frozen=True)
class Asked:
    """One evaluation that the sampler asks for: the whole latent, after guidance.

    forward: makes it; returns the denoised estimate, shaped as x.
    x: (batch, ...) the state. sigma: (batch,) its noise level.
    beside: what acts on it beside the model (active conditionings, ControlNets, strengths of LoRA hooks).
    Where that changes the output jumps, and says nothing of what comes after.
    reads_parts: True if the sampler itself reads the parts that guidance is made of, so that they must be
    computed.
    """

    forward: Callable[[], Tensor]
    x: Tensor
    sigma: Tensor
    beside: Hashable = None
    reads_parts: bool = False

    def sigma_column(self) -> Tensor:
        """sigma shaped (batch, 1, ...) to multiply x."""
        return as_column(self.sigma, self.x)


class SamplingRun(ABC):
    """One sampling run after a plan."""

    def __init__(self, plan: Plan | Pilot, report: RunReport, repay: Repay | None) -> None:
        self._plan = plan
        self._report = report
        self._repay = repay
        self._trail = Trail(keeps_reused=repay is not None)
        self._beside: Hashable = None
        self._step = 0
        self._step_kind: StepKind = "full"
        self._watch = Stopwatch()
        self._shares = Readings()  # of the state, that were put right

    @property
    def held(self) -> Held | None:
        """Which tensor the sampler goes on from, if anything is to be put right in it."""
        return self._repay.response.held if self._repay is not None else None

    @abstractmethod
    def predict(self, asked: Asked) -> Tensor:
        """Answers one evaluation of the sampler: (batch, ...) the denoised estimate."""

    def due(self, step: int, state: Tensor) -> Tensor | None:
        """What to add to the state that the sampler holds when it reports step number `step`; None if
        nothing is due."""
        change = self._repay.due(self._trail, step) if self._repay is not None else None
        if change is not None and change.shape != state.shape:
            return None
        if change is not None:
            self._shares.send(energies(change, state), about=step)
        return change

    def stop_repaying(self, why: str) -> None:
        """The state could not be changed; the run goes on without."""
        self._repay = None
        self._report.note(why)

    def state_reported(self, step: int, state: Tensor) -> None:
        """The state that the sampler has reported with step number `step`, with what was due."""
        if self._repay is not None and self._repay.notice is not None:
            self._repay.notice.reported(step, state)

    def step_finished(self, step: int) -> RunReport:
        """The sampler has evaluated step number `step` and goes on to the next. Returns the report so far."""
        self._report.add_step(step, self._step_kind, self._watch.lap(step))
        self._take_shares()
        self._step, self._step_kind = step + 1, "full"
        self._trail.next_step(step)
        return self._report

    def sampling_finished(self, samples: Tensor) -> None:
        """The sampler has gone through all its steps. samples: its result, in the model's latent space."""
        self._report.finished = True

    def close(self) -> RunReport:
        """Frees every tensor and returns the report of the run."""
        if self._report.finished:
            self._report.step_seconds = self._watch.seconds()
            self._shares.wait()
            self._take_shares()
        self._shares.clear()
        self._trail.start_anew()
        return self._report

    def _see(self, asked: Asked, denoised: Tensor, is_reused: bool) -> None:
        """Notes the output of an evaluation that the model answered."""
        self._compare(asked)
        self._note(asked, output_of(asked.x, denoised, asked.sigma_column()), is_reused)

    def _note(self, asked: Asked, output: Tensor, is_reused: bool) -> None:
        self._trail.see(output, asked.sigma_column(), is_reused)
        if self._repay is not None and self._repay.notice is not None:
            self._repay.notice.evaluated(asked.x, output)

    def _compare(self, asked: Asked) -> None:
        """Forgets outputs that this evaluation's cannot be compared with."""
        if asked.beside != self._beside or not self._trail.fits(asked.x):
            self._trail.start_anew()
        self._beside = asked.beside

    def _take_shares(self) -> None:
        for step, (change, state) in self._shares.arrived():
            self._report.repaid[step] = (change / state) ** 0.5 if state > 0 else 0.0
