"""What a sampling run did: evaluations run and asked, the kind and time of each step, and anything
unusual."""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from .profile import Profile

StepKind = Literal["full", "reuse"]
Granularity = Literal["stack", "branch", "output"]


@dataclass
class RunReport:
    """Filled by the run, read after it.

    An evaluation is one conditioning row at one step. steps, planned_full: of the plan; None full ones
    where it was decided while sampling. is_corrected: whether what is reused is corrected too. granularity:
    what is kept. repaid: at which steps how much of the state's size was put right. limited_gammas:
    corrections whose calibrated gamma was out of range.
    drift: how many times the calibrated noise was measured at most, None if it was not watched.
    drifted_steps: planned to be reused, but computed because of it. cache_bytes: of the tensors that were
    kept from one step to the next, at most. seconds: of the whole run, loading the model included.
    step_seconds: of each step, the first one from the first call of the model; by the host's clock until
    the run has reached its end, from then on by the device's. profile: by which the run was corrected and
    watched, if any.
    why_full: why nothing could be reused in it, None of a run that could; where the run went as without the
    pack, steps and evaluations were not counted.
    """

    steps: int
    planned_full: int | None
    is_corrected: bool = False
    granularity: Granularity = "stack"
    evaluations_full: int = 0
    evaluations_reused: int = 0
    limited_gammas: int = 0
    drift: float | None = None
    drifted_steps: int = 0
    cache_bytes: int = 0
    seconds: float = 0.0
    finished: bool = False
    step_kinds: dict[int, StepKind] = field(default_factory=dict)
    step_seconds: dict[int, float] = field(default_factory=dict)
    repaid: dict[int, float] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    profile: Profile | None = None
    why_full: str | None = None

    def count(self, kind: StepKind, evaluations: int) -> None:
        if kind == "full":
            self.evaluations_full += evaluations
        else:
            self.evaluations_reused += evaluations

    def add_step(self, step: int, kind: StepKind, seconds: float) -> None:
        self.step_kinds[step] = kind
        self.step_seconds[step] = seconds

    def note(self, reason: str) -> None:
        self.notes[reason] += 1

    @property
    def evaluations_asked(self) -> int:
        return self.evaluations_full + self.evaluations_reused

    @property
    def steps_seconds(self) -> float:
        """All steps together, without loading the model."""
        return sum(self.step_seconds.values())

    @property
    def full_step_seconds(self) -> float | None:
        """Median over the full steps; the first one, which warms up, counts no more than the others. None if
        no step ended."""
        full = [each for step, each in self.step_seconds.items() if self.step_kinds[step] == "full"]
        return statistics.median(full) if full else None

    @property
    def estimated_uncached_seconds(self) -> float | None:
        """All steps, had each taken as long as a full one."""
        full = self.full_step_seconds
        return full * len(self.step_seconds) if full is not None else None

    def summary(self) -> str:
        """One line for the log."""
        full = sum(kind == "full" for kind in self.step_kinds.values())
        line = (
            f"computed {full} of {len(self.step_kinds)} steps ({self.evaluations_full} of "
            f"{self.evaluations_asked} evaluations) in {self.seconds:.2f} s"
        )
        if self.evaluations_reused and self.estimated_uncached_seconds is not None:
            uncached = self.seconds - self.steps_seconds + self.estimated_uncached_seconds
            line += f" instead of about {uncached:.2f} s"
        line += f", {self.cache_bytes / 1e6:.1f} MB of cache"
        remarks = [] if self.finished else ["stopped before the end"]
        remarks += [f"{reason} ({times}x)" for reason, times in self.notes.items()]
        if self.drifted_steps:
            remarks.append(self.drift_remark())
        if self.limited_gammas:
            remarks.append(f"gamma was out of range and limited ({self.limited_gammas}x)")
        return "; ".join([line, *remarks])

    def drift_remark(self) -> str:
        """For a run with drifted_steps."""
        return (
            f"reuse disturbed this run up to {self.drift:.1f} times as much as the calibration, so "
            f"{self.drifted_steps} steps more were computed: calibrate with this model, size and prompt"
        )

    def progress(self) -> dict:
        """What the steps were so far, as plain JSON values. Their times are those of the program, which does
        not wait for a GPU to finish what it was given."""
        names = {"full": "full", "reuse": "corrected" if self.is_corrected else "reused"}
        done = sorted(self.step_kinds)
        return {
            "steps": self.steps,
            "kinds": [names[self.step_kinds[step]] for step in done],
            "milliseconds": [round(1000 * self.step_seconds[step], 2) for step in done],
            "repaid": [round(self.repaid.get(step, 0.0), 6) for step in done],
        }

    def as_dict(self) -> dict:
        """The same facts as plain JSON values."""
        return {
            "steps": self.steps,
            "full": self.evaluations_full,
            "asked": self.evaluations_asked,
            "seconds": round(self.seconds, 4),
            "step_kinds": [self.step_kinds[step] for step in sorted(self.step_kinds)],
            "step_milliseconds": [
                round(1000 * self.step_seconds[step], 2) for step in sorted(self.step_seconds)
            ],
            "repaid": [round(self.repaid.get(step, 0.0), 6) for step in sorted(self.step_kinds)],
            "granularity": self.granularity,
            "finished": self.finished,
            "limited_gammas": self.limited_gammas,
            "drift": round(self.drift, 3) if self.drift is not None else None,
            "drifted_steps": self.drifted_steps,
            "cache_bytes": self.cache_bytes,
            "notes": dict(self.notes),
            "why_full": self.why_full,
        }
