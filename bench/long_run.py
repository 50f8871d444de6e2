"""Measures tasks one after the other, each once: a long bench can be stopped and started again."""

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import row_file

Task = TypeVar("Task")  # a dataclass with a key


def missing(wanted: Sequence[Task], rows: Path, what: str) -> list[Task]:
    """The tasks without a row. what: they are called in the line that says how many are done."""
    done = row_file.by_key(rows)
    found = [task for task in wanted if task.key not in done]
    print(f"{len(wanted)} {what}, {len(wanted) - len(found)} of them done", flush=True)
    return found


def measure(
    tasks: Sequence[Task],
    measured: Callable[[Task], dict],
    rows: Path,
    minutes: float = math.inf,
    *,
    label: Callable[[Task], str] = attrgetter("key"),
    work: Callable[[Task], float] = lambda task: 1.0,
) -> None:
    """Appends a row for each task: its key, its fields, and what was measured. Ends early when stopped by the
    user, or before a task that would not be finished in the minutes. work: expected time, in any unit."""
    progress, failed = Progress([work(task) for task in tasks], minutes), 0
    for task in tasks:
        if not progress.allows(work(task)):
            print("stopped: the next would not be finished in the minutes that were given")
            break
        progress.says(label(task))
        try:
            row_file.append(rows, {"key": task.key, **asdict(task), **measured(task)})
        except KeyboardInterrupt:
            print("\nstopped; what was running is not kept")
            break
        except Exception:  # one task must not cost a night; without a row it is tried again at the next start
            traceback.print_exc()
            failed += 1
        progress.did(work(task))
    if failed:
        print(f"{failed} failed, see above; they are tried again at the next start")


class Progress:
    """Says what is done and how long the rest will take, by the work done so far in this run."""

    def __init__(self, works: Sequence[float], minutes: float = math.inf) -> None:
        self._left = sum(works)
        self._count, self._number, self._done = len(works), 0, 0.0
        self._started = time.monotonic()
        self._minutes = minutes

    def allows(self, work: float) -> bool:
        """Whether so much work will be finished in the minutes that were given."""
        elapsed = time.monotonic() - self._started
        return elapsed + work * (elapsed / self._done if self._done else 0.0) <= 60 * self._minutes

    def says(self, label: str) -> None:
        self._number += 1
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._started) / self._done * self._left
            time_left = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
            left = f", about {time_left} left"
        print(f"[{self._number}/{self._count}{left}] {label}", flush=True)

    def did(self, work: float) -> None:
        self._done += work
        self._left -= work
