"""A cached sampling run above the model: at reused steps the model is not called at all.

What the sampler gets after guidance is continued from the last computed steps, as d = (x - denoised) /
sigma. So it needs no block of the model, and works with whatever is below: conditionings, areas, windows,
ControlNets, guiders.
"""

from torch import Tensor

from .correction import Corrector
from .plan import Plan
from .repay import Repay
from .report import RunReport
from .sampling_run import Asked, SamplingRun


class OutputRun(SamplingRun):
    """Follow `predict`: it is all that happens during sampling."""

    def __init__(self, plan: Plan, corrector: Corrector, repay: Repay | None) -> None:
        report = RunReport(
            steps=plan.steps,
            planned_full=plan.full,
            is_corrected=corrector.correction.is_on,
            granularity="output",
        )
        super().__init__(plan, report, repay)
        self._corrector = corrector
        # By stage: how many rows the model had in the last computed evaluation.
        self._rows: dict[int, int] = {}
        self._rows_now = 0

    def predict(self, asked: Asked) -> Tensor:
        self._watch.start(asked.x.device)
        self._compare(asked)
        if not self._plan.is_reused(self._step):
            return self._compute(asked)
        missing = self._missing(asked)
        if missing is not None:
            self._report.note(missing)
            return self._compute(asked)
        return self._reuse(asked)

    def rows_computed(self, count: int) -> None:
        """The model was called with so many rows."""
        self._rows_now += count

    def step_finished(self, step: int) -> RunReport:
        self._report.cache_bytes = max(self._report.cache_bytes, self._trail.nbytes)
        return super().step_finished(step)

    def _missing(self, asked: Asked) -> str | None:
        """Why this evaluation cannot be reused, or None."""
        if asked.reads_parts:
            return "the sampler reads the parts of guidance, which are there only where the model is computed"
        if len(self._trail.steps) < 2:
            return "too few computed steps could be continued"
        return None

    def _compute(self, asked: Asked) -> Tensor:
        stage, self._rows_now = self._trail.stage, 0
        denoised = asked.forward()
        self._rows[stage] = max(self._rows_now, 1)
        self._report.count("full", self._rows[stage])
        self._see(asked, denoised, is_reused=False)
        return denoised

    def _reuse(self, asked: Asked) -> Tensor:
        trail, sigma = self._trail, asked.sigma_column()
        output = trail.combined(self._corrector.weights(self._step, trail.steps))
        self._report.count("reuse", self._rows.get(trail.stage, 1))
        self._step_kind = "reuse"
        self._note(asked, output, is_reused=True)
        return (asked.x - output * sigma).to(asked.x.dtype)
