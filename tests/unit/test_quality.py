"""The quality bench around its sampling: order, what is left out, and what the report makes of rows."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest

import lemica_table
import quality
import quality_report
import quality_tasks
import quality_workers
import row_file
from quality_tasks import PUBLISHED, Task, tasks


def row(method, reuse=0.5, seed=1, **changes):
    task = Task("image", "euler", 20, reuse, method, seed, 4)
    return {
        "key": task.key, **asdict(task), "sampled_steps": 20, "setting": None, "full": 20,
        "asked": 40, "seconds": 1.0, "flops": 50.0, "psnr": [30.0, 32.0, 34.0, 36.0], "ssim": [0.9] * 4,
        "distance": [0.1] * 4, "hits": [1, 1, 1, 0], **changes,
    }  # fmt: skip


def uncached(seed=1, seconds=2.0):
    return row("uncached", 0.0, seed, full=40, seconds=seconds, flops=100.0, psnr=[100.0] * 4)


def test_references_come_first_and_important_settings_before_others():
    order = tasks(("image", "video"), ("euler", "heun"), (50, 30), ("omnicache", "lazycache"), 64)
    assert [(task.method, task.reuse) for task in order[:9]] == [
        ("uncached", 0.0), ("omnicache", 0.5), ("omnicache", 0.6), ("omnicache", 0.7),
        ("uncached-bf16", 0.0), ("lazycache", 0.5), ("lazycache", 0.6), ("lazycache", 0.7),
        ("lazycache", PUBLISHED),
    ]  # fmt: skip
    assert [(task.model, task.seed) for task in order[::9][:6]] == [
        ("image", 1), ("video", 1), ("image", 2), ("video", 2), ("image", 3), ("video", 3)
    ]  # fmt: skip
    assert {(task.sampler, task.steps) for task in order[:54]} == {("euler", 50)}
    assert len({task.key for task in order}) == len(order)


def test_a_few_step_model_has_its_own_settings():
    order = tasks(("image_fewstep", "image"), ("euler",), (16, 12, 8, 20), ("omnicache",), 22, seeds=(1,))
    assert [(task.model, task.steps, task.full_steps) for task in order if task.method == "omnicache"] == [
        ("image_fewstep", 16, 11), ("image_fewstep", 16, 8), ("image_fewstep", 12, 9),
        ("image_fewstep", 12, 6), ("image_fewstep", 8, 6), ("image_fewstep", 8, 4),
        ("image", 20, 10), ("image", 20, 8), ("image", 20, 6),
    ]  # fmt: skip


def test_a_task_knows_its_budget_and_its_reference():
    task = Task("image", "euler", 50, 0.6, "lazycache", 2, 64)
    assert task.full_steps == 20
    assert task.reference == Task("image", "euler", 50, 0.0, "uncached-bf16", 2, 64)


def test_what_is_done_is_not_sampled_again(tmp_path, monkeypatch, capsys):
    """The host is not even loaded: the unit tests have none."""
    monkeypatch.setattr(quality, "ROWS", tmp_path / "rows.jsonl")
    wanted = tasks(("image",), ("euler",), (20,), ("even",), 4, seeds=(1,))
    for task in wanted:
        row_file.append(quality.ROWS, {"key": task.key})
    quality.run(wanted, 1.0)
    assert capsys.readouterr().out == "4 arms, 4 of them done\n"


def test_an_arm_whose_errors_are_not_measured_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lemica_table, "FOLDER", tmp_path)
    lemica, even = (Task("image", "euler", 3, 0.5, method, 1, 4) for method in ("lemica", "even"))
    assert quality.measurable([lemica, even]) == [even]
    assert "1 arms of lemica are left out" in capsys.readouterr().out
    row_file.append(lemica_table.path_of("image", 3), {"from": 0, "to": 2, "error": 0.5})
    assert quality.measurable([lemica, even]) == [lemica, even]


def test_the_report_takes_means_and_spreads_over_samples_and_seeds(tmp_path):
    rows = [uncached(), row("even"), uncached(2, 3.0), row("even", seed=2, psnr=[32.0, 34.0, 36.0, 38.0])]
    plain, arm = quality_report.aggregated(rows, tmp_path)
    assert (plain["method"], plain["psnr"], plain["reuse"]) == ("uncached", 100.0, 0.0)
    assert (arm["psnr"], arm["psnr_sd"]) == (34.0, pytest.approx(np.sqrt(6), abs=0.01))
    assert (arm["speedup"], arm["flops"], arm["reuse"]) == (2.5, 0.5, 0.5)
    assert (arm["samples"], arm["seeds"], arm["accuracy"]) == (8, 2, 0.75)
    demo_keys = "model method reuse steps sampler full asked seconds speedup psnr ssim"
    assert set(demo_keys.split()) <= set(arm)
    assert arm["frechet"] is None  # no features were kept


def test_frechet_distance_is_over_the_samples_of_all_seeds(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, 3))
    np.save(tmp_path / "data_image.npy", data)
    rows = [uncached(), uncached(2)]
    for each, part in zip(rows, (data[:100], data[100:]), strict=True):
        np.save(tmp_path / f"{each['key']}.features.npy", part)
    (plain,) = quality_report.aggregated(rows, tmp_path)
    assert plain["frechet"] == 0.0 and plain["precision"] == plain["recall"] == 1.0
    assert plain["frechet_sd"] < 0.1


def test_more_samples_go_before_fewer(tmp_path):
    rows = [uncached(), row("even")]
    more = [{**each, "samples": 8, "psnr": [40.0] * 8} for each in rows]
    assert [each["psnr"] for each in quality_report.aggregated([*rows, *more], tmp_path)] == [40.0, 40.0]


def test_the_document_marks_the_best_and_the_idle(tmp_path):
    better = row("omnicache", psnr=[50.0] * 4)
    idle = row("fora", full=40, psnr=[20.0] * 4)
    arms = quality_report.aggregated([uncached(), row("even"), better, idle], tmp_path)
    text = quality_report.document(arms)
    assert "| image | 50% | 1 of 1 | +17.0 | +17.0 | +17.0 |" in text
    assert "| image | euler | 20 | 50% | 50.0 | 33.0 (even) | +17.0 | - |" in text
    text = quality_report.all_arms("image", arms)
    lines = [line for line in text[text.index("## euler") :].splitlines() if line.startswith("|")]
    assert lines[2].startswith("| uncached | - | 40 / 40 | 100% | 1.00x | - |")
    assert "| omnicache | 50% | 20 / 40 | 50% | 2.00x | **50.00** ± 0.0" in lines[3]
    assert lines[4].startswith("| even |") and lines[5].startswith("| fora (idle) |")


def test_the_report_is_a_table_figures_and_plots(tmp_path, monkeypatch):
    for name in ("OUT", "DOCS"):
        monkeypatch.setattr(quality_report, name, tmp_path)
    readme = tmp_path / "README.md"
    mark = "<!-- from make quality -->"
    readme.write_text(f"before\n{mark}\nold\n{mark}\nafter\n")
    monkeypatch.setattr(quality_report, "README", readme)
    quality_report.write([uncached(), row("even"), row("even", 0.6)], tmp_path)
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert [each["budget"] for each in figures["rows"]] == [0.0, 0.5, 0.6]
    assert "(quality_image.md)" in (tmp_path / "quality.md").read_text()
    assert "## euler, 20 steps" in (tmp_path / "quality_image.md").read_text()
    assert all((tmp_path / f"quality_image.{kind}").stat().st_size > 1000 for kind in ("png", "svg"))
    assert not (tmp_path / "quality_video.png").exists()
    assert readme.read_text().splitlines()[::5] == ["before", "after"] and "old" not in readme.read_text()


def test_the_readme_shows_what_was_measured():
    rows = json.loads((quality_report.OUT / "quality.json").read_text())["rows"]
    assert "\n".join(quality_report.readme_table(rows)) in quality_report.README.read_text()


def test_best_is_who_meets_the_budget():
    rows = [
        {"method": "a", "budget": 0.5, "reuse": 0.5, "flops": 0.54, "psnr": 30.0},
        # The next two compute more than the budget leaves.
        {"method": "b", "budget": 0.5, "reuse": 0.5, "flops": 0.56, "psnr": 40.0},
        {"method": "c", "budget": 0.5, "reuse": 0.4, "flops": 0.50, "psnr": 45.0},
        {"method": "d", "budget": 0.5, "reuse": 0.6, "flops": 0.40, "psnr": 20.0},
        {"method": "e", "budget": 0.0, "reuse": 0.9, "flops": 0.10, "psnr": 50.0},  # a published setting
    ]
    assert quality_report.best_of(rows, 0.5) is rows[0]
    assert quality_report.best_of(rows, 0.0) is None and quality_report.best_of(rows, 0.6) is None


def test_a_worker_gets_all_seeds_of_an_arm_at_once():
    order = tasks(("image",), ("euler",), (20,), ("fora", "even"), 4, seeds=(1, 2))
    batches = quality_workers._batches([task for task in order if task.method != "uncached"])
    assert [[(task.method, task.reuse, task.seed) for task in batch] for batch in batches][:2] == [
        [("even", 0.5, 1), ("even", 0.5, 2)], [("even", 0.6, 1), ("even", 0.6, 2)]
    ]  # fmt: skip
    assert sum(batches, []) and len(sum(batches, [])) == len(set(sum(batches, [])))


@pytest.fixture
def threads(tmp_path, monkeypatch):
    """In the place of processes, which would load the host; no pictures of earlier runs."""
    monkeypatch.setattr(quality_tasks, "FOLDER", tmp_path)
    monkeypatch.setattr(
        quality_workers, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers)
    )


def test_workers_measure_references_first_and_go_on_after_a_failure(threads, tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.jsonl"
    started = []

    def measured(batch):
        started.append(batch[0].method)
        if batch[0].method == "even":
            raise ValueError("out of luck")
        return [{"key": task.key} for task in batch]

    monkeypatch.setattr(quality_workers, "prepare", lambda models: started.append(models))
    monkeypatch.setattr(quality_workers, "measured", measured)
    wanted = tasks(("image",), ("euler",), (20,), ("fora", "even"), 4, seeds=(1, 2))
    quality_workers.run(wanted, rows, 2, 60.0)
    assert started[:2] == [["image"], "uncached"] and sorted(started[2:]) == ["even"] * 3 + ["fora"] * 4
    assert len(row_file.read(rows)) == 2 + 4 * 2
    assert "out of luck" in capsys.readouterr().err


def test_a_reference_whose_pictures_alone_are_missing_gets_no_second_row(threads, tmp_path, monkeypatch):
    rows, started = tmp_path / "rows.jsonl", []
    wanted = tasks(("image",), ("euler",), (20,), ("even",), 4, seeds=(1,))
    row_file.append(rows, {"key": wanted[0].key})
    monkeypatch.setattr(quality_workers, "prepare", lambda models: None)
    monkeypatch.setattr(
        quality_workers, "measured", lambda batch: started.append(batch) or [{"key": batch[0].key}]
    )
    quality_workers.run(wanted[1:], rows, 2, 60.0)
    assert [batch[0].method for batch in started] == ["uncached", "even", "even", "even"]
    assert sorted(row["key"] for row in row_file.read(rows)) == sorted(task.key for task in wanted)


def test_times_are_those_of_a_cpu_with_fewer_samples_too(tmp_path):
    """Four samples were timed, more were sampled on a GPU."""
    gpu = {"samples": 8, "seconds": None, "flops_uncached": 200.0, "flops": 90.0}
    rows = [
        uncached(), row("omnicache", seconds=0.8),
        {**uncached(), **gpu, "key": "of a GPU"}, row("omnicache", **gpu), row("even", **gpu),
    ]  # fmt: skip
    arms = {arm["method"]: arm for arm in quality_report.aggregated(rows, tmp_path)}
    assert arms["omnicache"]["samples"] == 8 and arms["omnicache"]["flops"] == 0.45
    assert (arms["omnicache"]["speedup"], arms["omnicache"]["seconds"]) == (2.5, 0.2)
    assert (arms["even"]["speedup"], arms["even"]["seconds"]) == (None, None)
    assert "| - |" in quality_report.all_arms("image", list(arms.values()))
