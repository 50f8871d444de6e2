"""What is remembered of the sampling runs of a patched model, for the report node."""

import hashlib
import math
from dataclasses import dataclass

from .profile import Profile
from .report import RunReport

MOST_RUNS = 16


@dataclass(frozen=True)
class LoggedRun:
    """One sampling run that has ended.

    node, prompt: the host's names of the node that sampled and of the prompt it ran for, None outside a
    prompt. ended: time of day, ISO 8601 in UTC. family, sampler: names; sigmas: the sampler's, one more than
    it has steps.
    """

    report: RunReport
    family: str
    sampler: str
    sigmas: tuple[float, ...]
    ended: str
    node: str | None = None
    prompt: str | None = None

    @property
    def equal_time_steps(self) -> int | None:
        """How many full steps, at least 1, take most nearly the time of this run's steps."""
        full = self.report.full_step_seconds
        return max(1, round(self.report.steps_seconds / full)) if full else None

    def as_dict(self) -> dict:
        """Plain JSON values; a megabyte is 10^6 bytes."""
        uncached = self.report.estimated_uncached_seconds
        return {
            "family": self.family,
            "sampler": self.sampler,
            "profile": _named(self.report.profile),
            "sigmas": [float(f"{sigma:.7g}") for sigma in self.sigmas if math.isfinite(sigma)],
            "node": self.node,
            "prompt": self.prompt,
            "ended": self.ended,
            **self.report.as_dict(),
            "full_steps": sum(kind == "full" for kind in self.report.step_kinds.values()),
            "steps_seconds": round(self.report.steps_seconds, 4),
            "estimated_uncached_seconds": round(uncached, 4) if uncached is not None else None,
            "equal_time_steps": self.equal_time_steps,
            "cache_megabytes": round(self.report.cache_bytes / 1e6, 2),
        }


def _named(profile: Profile | None) -> dict[str, str] | None:
    """What tells a profile from others. fingerprint: of all that it measured."""
    if profile is None:
        return None
    digest = hashlib.sha256(profile.to_json().encode()).hexdigest()
    return {"name": profile.name, "fingerprint": digest[:16]}


class RunLog:
    """Hangs on a patched model and its clones. Of each node that sampled, the runs of the last prompt in
    which it did. Holds no tensors."""

    def __init__(self) -> None:
        self.runs: tuple[LoggedRun, ...] = ()  # the latest last

    def add(self, run: LoggedRun) -> None:
        """A node may sample more than once in a prompt; in the next prompt its runs replace those."""
        is_same_turn = run.prompt is not None
        kept = [
            each
            for each in self.runs
            if each.node != run.node or (is_same_turn and each.prompt == run.prompt)
        ]
        self.runs = (*kept, run)[-MOST_RUNS:]
