"""What the pack and its rivals do to quality on the demo models, all in one run of the real host.

    .host/venv/bin/python bench/quality.py                    # everything; stop and start again as you like
    .host/venv/bin/python bench/quality.py --minutes 60 --model image --sampler euler --steps 50
    .host/venv/bin/python bench/quality.py --workers 15       # on a GPU: 2500 arms took 7 minutes of an H200
    .host/venv/bin/python bench/quality.py --report           # only the table and the plots, of what is there

Each finished arm of each seed is a line of .host/quality/rows.jsonl and is not sampled again. The report,
bench/out/quality.json, docs/quality.md and docs/quality_<model>.md, .png and .svg, is written at the end of
each run.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import lemica_table
import long_run
import quality_report
import quality_workers
import row_file
from quality_tasks import FEW_STEPS, FOLDER, METHODS, MODELS, ROWS, SAMPLES, SEEDS, SETTINGS, Task, tasks

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]


def run(wanted: Sequence[Task], minutes: float, workers: int = 1) -> None:
    """Measures what is not there yet."""
    missing = measurable(long_run.missing(wanted, ROWS, "arms"))
    if not missing:
        return
    if workers > 1:
        quality_workers.run(missing, ROWS, workers, minutes)
        return
    started = time.monotonic()
    quality_workers.prepare(sorted({task.model for task in missing}))
    # What prepares the models says nothing of how long the arms take.
    left = minutes - (time.monotonic() - started) / 60
    measure = quality_workers.bench().measure
    long_run.measure(missing, measure, ROWS, left, label=attrgetter("label"), work=attrgetter("work"))


def measurable(missing: Sequence[Task]) -> list[Task]:
    """Those whose model is trained, and whose errors are measured where the method needs them."""
    kept = [
        task
        for task in missing
        if task.method != "lemica" or lemica_table.is_complete(task.model, task.steps)
    ]
    if len(kept) < len(missing):
        print(
            f"{len(missing) - len(kept)} arms of lemica are left out: run bench/lemica_errors.py first",
            flush=True,
        )
    for model in sorted({task.model for task in kept}):
        if not (ROOT / "schedules" / f"omnicache_demo_{model}.json").exists():
            print(f"{model} is left out: train it, then run demo/make_profiles.py {model}", flush=True)
            kept = [task for task in kept if task.model != model]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    samplers, steps = (sorted({setting[i] for setting in (*SETTINGS, *FEW_STEPS)}) for i in (0, 1))
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sampler", nargs="+", choices=samplers, default=samplers)
    parser.add_argument("--steps", nargs="+", type=int, choices=steps, default=steps)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--samples", type=int, default=SAMPLES, help="pictures or videos of each seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--workers", type=int, default=1, help="processes: for a GPU, one a core")
    parser.add_argument("--redo", nargs="+", choices=METHODS, default=[], help="measure these anew")
    parser.add_argument("--report", action="store_true", help="sample nothing")
    given = parser.parse_args()
    if given.samples < 4:
        parser.error("--samples: at least 4 are needed for a distance between distributions")
    if given.redo:
        row_file.forget(ROWS, lambda row: row["method"] in given.redo)
    if not given.report:
        wanted = tasks(given.model, given.sampler, given.steps, given.methods, given.samples, given.seeds)
        run(wanted, given.minutes, given.workers)
    quality_report.write(list(row_file.by_key(ROWS).values()), FOLDER)


if __name__ == "__main__":
    main()
