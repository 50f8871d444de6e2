"""A long bench that is stopped and started again."""

from dataclasses import dataclass

import long_run
import row_file


@dataclass(frozen=True)
class Named:
    key: str
    steps: int


FIRST, SECOND, THIRD = (Named(key, steps) for key, steps in (("a", 10), ("b", 50), ("c", 10)))


def test_rows_survive_a_crash_in_the_middle_of_a_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    row_file.append(rows, {"key": "a"})
    with rows.open("a") as file:
        file.write('{"key": "b", "met')
    row_file.append(rows, {"key": "c"})
    assert row_file.read(rows) == [{"key": "a"}, {"key": "c"}]


def test_rows_can_be_forgotten_and_the_last_of_a_key_counts(tmp_path):
    rows = tmp_path / "rows.jsonl"
    for psnr in (1, 2, 3):
        row_file.append(rows, {"key": "a", "psnr": psnr})
    assert row_file.by_key(rows) == {"a": {"key": "a", "psnr": 3}}
    row_file.forget(rows, lambda row: row["psnr"] > 2)
    assert [row["psnr"] for row in row_file.read(rows)] == [1, 2]


def test_what_failed_has_no_row_and_is_measured_at_the_next_start(tmp_path, capsys):
    rows, wanted = tmp_path / "rows.jsonl", [FIRST, SECOND, THIRD]

    def fails_once(task):
        if task == SECOND and not row_file.read(rows)[1:]:
            raise ValueError("out of luck")
        return {"psnr": 30.0}

    long_run.measure(long_run.missing(wanted, rows, "arms"), fails_once, rows)
    assert [row["key"] for row in row_file.read(rows)] == ["a", "c"]
    shown = capsys.readouterr()
    assert "out of luck" in shown.err and "1 failed" in shown.out
    long_run.measure(long_run.missing(wanted, rows, "arms"), fails_once, rows)
    assert row_file.read(rows)[2] == {"key": "b", "steps": 50, "psnr": 30.0}
    assert capsys.readouterr().out.splitlines()[:2] == ["3 arms, 2 of them done", "[1/1] b"]


def test_what_was_running_when_the_user_stopped_is_not_kept(tmp_path):
    rows = tmp_path / "rows.jsonl"

    def stopped_at_the_second(task):
        if task == SECOND:
            raise KeyboardInterrupt
        return {}

    long_run.measure([FIRST, SECOND, THIRD], stopped_at_the_second, rows)
    assert [row["key"] for row in row_file.read(rows)] == ["a"]


def test_nothing_is_started_that_would_not_be_finished_in_time(tmp_path, monkeypatch):
    """The first takes a minute, so the second, five times as long, has no room in three."""
    now, rows = [0.0], tmp_path / "rows.jsonl"
    monkeypatch.setattr(long_run.time, "monotonic", lambda: now[0])

    def takes_a_minute(task):
        now[0] += 60.0
        return {}

    long_run.measure([FIRST, SECOND, THIRD], takes_a_minute, rows, minutes=3.0, work=lambda task: task.steps)
    assert [row["key"] for row in row_file.read(rows)] == ["a"]


def test_the_time_left_goes_by_the_work_that_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(long_run.time, "monotonic", lambda: now[0])
    progress = long_run.Progress([10.0, 50.0])
    progress.says("first")
    now[0] = 60.0
    progress.did(10.0)
    progress.says("second")
    assert capsys.readouterr().out.splitlines() == ["[1/2] first", "[2/2, about 5 min left] second"]
