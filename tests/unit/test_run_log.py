"""What is remembered of runs, and the numbers that are made of it."""

import pytest
import torch

from comfyui_omnicache.omnicache.report import RunReport
from comfyui_omnicache.omnicache.run_log import MOST_RUNS, LoggedRun, RunLog
from comfyui_omnicache.omnicache.stopwatch import Stopwatch


def run(kinds: str = "FFrFr", seconds=(9.0, 2.0, 0.5, 2.0, 0.5), node="3", prompt="a") -> LoggedRun:
    report = RunReport(
        len(kinds),
        kinds.count("F"),
        step_kinds={step: "full" if kind == "F" else "reuse" for step, kind in enumerate(kinds)},
        step_seconds=dict(enumerate(seconds)),
        seconds=20.0,
        cache_bytes=2_500_000,
        finished=bool(seconds),
    )
    return LoggedRun(report, "sd3", "euler", (1.0, 0.5, 0.0), "2026-01-01T00:00:00+00:00", node, prompt)


def test_the_uncached_time_is_estimated_from_the_median_full_step():
    facts = run().as_dict()
    assert facts["steps_seconds"] == 14.0
    assert facts["estimated_uncached_seconds"] == 5 * 2.0  # the first step, which warms up, does not count
    assert (facts["full_steps"], facts["equal_time_steps"]) == (3, 7)
    assert facts["cache_megabytes"] == 2.5


def test_the_line_of_a_run_has_its_time_beside_the_estimated_one():
    report = run().report
    report.count("full", 6)
    report.count("reuse", 4)
    # 20 s were 6 s of loading and 14 s of steps, which would have been 5 x 2 s.
    assert report.summary() == (
        "computed 3 of 5 steps (6 of 10 evaluations) in 20.00 s instead of about 16.00 s, 2.5 MB of cache"
    )


def test_a_run_that_ended_no_step_estimates_nothing():
    facts = run(seconds=()).as_dict()
    assert facts["estimated_uncached_seconds"] is None and facts["equal_time_steps"] is None
    assert facts["steps_seconds"] == 0 and not facts["finished"]


def test_the_log_keeps_of_each_node_the_runs_of_its_last_prompt():
    log = RunLog()
    for node, prompt in [("3", "a"), ("3", "a"), ("8", "a"), ("3", "b")]:
        log.add(run(node=node, prompt=prompt))
    assert [(each.node, each.prompt) for each in log.runs] == [("8", "a"), ("3", "b")]
    log.add(run(node="3", prompt="b"))
    assert [(each.node, each.prompt) for each in log.runs] == [("8", "a"), ("3", "b"), ("3", "b")]


def test_outside_a_prompt_the_last_run_is_kept():
    log = RunLog()
    for _ in range(3):
        log.add(run(node=None, prompt=None))
    assert len(log.runs) == 1


def test_the_log_does_not_grow_without_end():
    log = RunLog()
    for number in range(3 * MOST_RUNS):
        log.add(run(node=str(number)))
    assert [each.node for each in log.runs] == [str(number) for number in range(2 * MOST_RUNS, 3 * MOST_RUNS)]


def test_a_stopwatch_counts_from_its_first_start(monkeypatch):
    clock = iter([5.0, 7.0, 7.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    watch.start(torch.device("cpu"))
    watch.start(torch.device("cpu"))
    assert (watch.lap(0), watch.lap(1)) == (2.0, 0.5)
    assert watch.seconds() == {0: 2.0, 1: 0.5}


def test_a_stopwatch_never_started_has_no_times():
    watch = Stopwatch()
    assert watch.lap(0) == 0.0
    assert watch.seconds() == {}


class Event:
    """A CUDA event, on a device that takes two seconds from one to the next and was not waited for yet."""

    made: list["Event"] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.number, self.has_happened = len(self.made), False
        self.made.append(self)

    def record(self) -> None: ...

    def synchronize(self) -> None:
        for event in self.made[: self.number + 1]:
            event.has_happened = True

    def elapsed_time(self, later: "Event") -> float:
        assert self.has_happened and later.has_happened
        return 2000.0 * (later.number - self.number)


def test_on_a_gpu_the_times_are_those_of_its_own_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch()
    watch.start(torch.device("cuda"))
    for step in range(3):
        watch.lap(step)
    assert not any(event.has_happened for event in Event.made)
    assert watch.seconds() == pytest.approx({0: 2.0, 1: 2.0, 2: 2.0})
