"""Runs the arms of bench/quality.py, also in several processes: with models as small as these, one process
leaves a GPU idle for most of the time. Imports the host in those processes alone."""

import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import long_run
import row_file
from quality_tasks import Task

if TYPE_CHECKING:
    from quality_arms import Bench

# Arms of one batch share what is sought or counted once, such as a threshold.
ARM = attrgetter("sampler", "steps", "model", "method", "reuse")


def run(missing: Sequence[Task], rows: Path, workers: int, minutes: float) -> None:
    """Measures the tasks, in their order but for the uncached arms, which come first."""
    os.environ["OMP_NUM_THREADS"] = "1"  # each process has a core to itself
    started, done = time.monotonic(), set(row_file.by_key(rows))
    wanted = dict.fromkeys(task.reference for task in missing)
    references = [task for task in wanted if task.key not in done or not task.pictures.exists()]
    others = [task for task in missing if task.reference != task]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        # What all need is made by one.
        pool.submit(prepare, sorted({task.model for task in missing})).result()
        for batches in (_batches(references), _batches(others)):
            left = minutes - (time.monotonic() - started) / 60
            for row in _rows(pool, batches, workers, left):
                if row["key"] not in done:  # a reference may have been sampled anew for its pictures alone
                    row_file.append(rows, row)


def _batches(tasks: Sequence[Task]) -> list[list[Task]]:
    """Each arm with all of its seeds, in the order of the first of them."""
    place = {name: number for number, name in enumerate(dict.fromkeys(map(ARM, tasks)))}
    return [list(own) for _, own in groupby(sorted(tasks, key=lambda task: place[ARM(task)]), ARM)]


def _rows(
    pool: ProcessPoolExecutor, batches: Sequence[list[Task]], workers: int, minutes: float
) -> Iterator[dict]:
    work = [sum(task.work for task in batch) for batch in batches]
    progress = long_run.Progress(work, minutes)
    waiting, running = list(zip(batches, work, strict=True))[::-1], {}
    while waiting or running:
        # Progress goes by what all processes do together; one takes so many times as long.
        while waiting and len(running) < workers and progress.allows(waiting[-1][1] * workers):
            batch, expected = waiting.pop()
            progress.says(batch[0].label)
            running[pool.submit(measured, batch)] = expected
        if not running:
            print(f"stopped: {len(waiting)} batches would not be finished in the minutes that were given")
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            progress.did(running.pop(future))
            try:
                yield from future.result()
            except Exception:  # without a row it is tried again at the next start
                traceback.print_exc()


def prepare(models: Sequence[str]) -> None:
    """Loads the models, and trains judges that are not there yet."""
    for model in models:
        bench().prepare(model)


def measured(tasks: Sequence[Task]) -> list[dict]:
    return [{"key": task.key, **asdict(task), **bench().measure(task)} for task in tasks]


@cache
def bench() -> "Bench":
    """Of this process, with the host and the pack."""
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from quality_arms import Bench

    return Bench()
