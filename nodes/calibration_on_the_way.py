"""A calibration in a run that the user wants for its picture: whatever goes wrong in it, the run goes on."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from comfy.model_management import InterruptProcessingException

from ..omnicache.calibration import CalibrationRun
from ..omnicache.report import RunReport
from ..omnicache.run import Call
from ..omnicache.stopwatch import Stopwatch

Result = TypeVar("Result")

_MOST_CHARACTERS = 200  # an error of the device can be a page


class CalibrationOnTheWay:
    """Runs every evaluation in full and measures beside it, until something is in the way of measuring.

    steps: of the sampler. finish: takes what was measured when all has gone well, and returns what to say.
    say: is called once, at the end, with that or with why nothing was measured.
    """

    def __init__(
        self,
        calibration: CalibrationRun,
        steps: int,
        finish: Callable[[CalibrationRun], str],
        say: Callable[[str], None],
    ) -> None:
        self.tap = calibration.tap
        self._calibration = calibration
        self._finish = finish
        self._say = say
        self._result = ""
        self._hindrance = ""
        self._report = RunReport(steps=steps, planned_full=steps)
        self._watch = Stopwatch()

    def evaluate(self, call: Call) -> torch.Tensor:
        """Answers one call of the host in full."""
        self._watch.start(call.x.device)
        self._report.count("full", len(call.rows))
        measured = self._attempt(lambda: self._calibration.evaluate(call))
        return measured if measured is not None else call.forward()

    def state_seen(self, x: torch.Tensor) -> None:
        """x: (batch, ...) what the sampler wants to be evaluated."""
        self._calibration.state_seen(x)

    def spares_control(self, rows: tuple[Hashable, ...], x: torch.Tensor) -> bool:
        """Never: every evaluation runs in full."""
        return False

    def step_finished(self, step: int) -> None:
        self._report.add_step(step, "full", self._watch.lap(step))
        self._attempt(lambda: self._calibration.step_finished(step))

    def sampling_finished(self, samples: torch.Tensor) -> None:
        self._attempt(lambda: self._calibration.sampling_finished(samples))
        self._result = self._attempt(lambda: self._finish(self._calibration)) or ""
        self._report.finished = True

    def close(self) -> RunReport:
        """Frees every tensor of the model's size, says how it ended, and returns the report of a run that was
        computed in full."""
        self._calibration.close()
        hindrance = self._hindrance or "the run was stopped before its end"
        said = self._result or f"not calibrated, this run was at full quality: {hindrance}"
        self._say(said)
        self._report.why_full = said
        if self._report.finished:
            self._report.step_seconds = self._watch.seconds()
        return self._report

    def _attempt(self, action: Callable[[], Result]) -> Result | None:
        """Does it unless something was in the way before. What the model itself raises comes again when it is
        called without measuring."""
        if self._hindrance:
            return None
        try:
            return action()
        except InterruptProcessingException:
            raise
        except Exception as error:
            is_written_for_users = isinstance(error, ValueError) and str(error)
            text = str(error) if is_written_for_users else f"{type(error).__name__}: {error}"
            self._hindrance = " ".join(text.split())[:_MOST_CHARACTERS]
        self._calibration.close()  # after the error is gone, which held on to its tensors
        return None
