"""Takes the times of a run's steps without making the host wait for a GPU."""

import time

import torch

Mark = float | torch.cuda.Event


class Stopwatch:
    """One per sampling run. On a GPU a mark is an event in the queue of its work, read when the run has
    ended: the host's own clock would show how fast work is queued, not how fast it is done."""

    def __init__(self) -> None:
        self._start: Mark | None = None
        self._marks: dict[int, Mark] = {}
        self._is_gpu = False
        self._clock = 0.0

    def start(self, device: torch.device) -> None:
        """The first step begins. Does nothing once started."""
        if self._start is None:
            self._is_gpu = device.type == "cuda"
            self._clock = time.perf_counter()
            self._start = self._now()

    def lap(self, step: int) -> float:
        """Step number `step` ends, and the next begins. Its seconds by the host's own clock, until those of
        the GPU are known; 0 if it was never started."""
        if self._start is None:
            return 0.0
        before, self._clock = self._clock, time.perf_counter()
        self._marks[step] = self._now()
        return self._clock - before

    def seconds(self) -> dict[int, float]:
        """Of each step. Waits for the last one to end."""
        if self._is_gpu and self._marks:
            list(self._marks.values())[-1].synchronize()
        ends = list(self._marks.values())
        starts = [self._start, *ends[:-1]]
        return {
            step: _between(start, end) for step, start, end in zip(self._marks, starts, ends, strict=False)
        }

    def _now(self) -> Mark:
        if not self._is_gpu:
            return self._clock
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(first: Mark, second: Mark) -> float:
    return second - first if isinstance(first, float) else first.elapsed_time(second) / 1000
