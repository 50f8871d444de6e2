"""What the pack and its rivals do to quality on the demo models, all in one run of the real host.

    .host/venv/bin/python bench/quality.py                    # everything; stop and start again as you like
    .host/venv/bin/python bench/quality.py --minutes 60 --model image --sampler euler --steps 50
    .host/venv/bin/python bench/quality.py --report           # only the table and the plots, of what is there

Each finished arm of each seed is a line of .host/quality/rows.jsonl and is not sampled again. The report,
bench/out/quality.json, docs/quality.md and docs/quality_*.png and .svg, is written at the end of each run.
"""

import argparse
import itertools
import json
import sys
import time
import traceback
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import row_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

FOLDER = ROOT / ".host" / "quality"
# In the order of their importance: a run that is stopped early has the first of them.
SETTINGS = (
    ("euler", 50), ("dpmpp_2m", 50), ("euler", 30), ("euler", 20), ("res_multistep", 50), ("uni_pc", 50),
    ("heun", 50), ("dpmpp_2m", 30), ("dpmpp_2m", 20), ("res_multistep", 30), ("uni_pc", 30), ("heun", 30),
    ("res_multistep", 20), ("uni_pc", 20), ("heun", 20),
)  # fmt: skip
FEW_STEPS = (("euler", 16), ("euler", 12), ("euler", 8))
OF_DIT = (("euler", 50), ("dpmpp_2m", 50), ("euler", 30), ("euler", 20))
# Share of the steps to reuse, by their number; few-step models have little to give away.
BUDGETS = {16: (5 / 16,), 12: (3 / 12,), 8: (2 / 8,)}
USUAL_BUDGETS = (0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Kind:
    """cost: of one sample's step, as a multiple of the image model's. chunk: samples evaluated together."""

    settings: tuple[tuple[str, int], ...]
    cost: float
    chunk: int


MODELS = {
    "image": Kind(SETTINGS, 1.0, 32),
    "image_fewstep": Kind(FEW_STEPS, 0.5, 32),
    "image_dit": Kind(OF_DIT, 0.5, 32),
    "video": Kind(SETTINGS, 10.0, 8),
}
SEEDS = (1, 2, 3)
SAMPLES = 22  # of each seed: 66 in all
METHODS = (
    "uncached", "omnicache", "fewer-steps", "even", "omnicache-paper", "omnicache-no-profile", "lemica",
    "taylorseer-2", "taylorseer-1", "teacache", "magcache", "fora", "hicache-2", "hicache-1", "lemica-local",
    "adacache", "adacache-moreg", "pab", "delta-dit", "deepcache", "t-gate", "omnicache-branch",
    "uncached-bf16", "lazycache", "easycache",
)  # fmt: skip
OF_VIDEOS = ("adacache-moreg",)
# What bench/teacache_fit.py and bench/lemica_errors.py did not measure on the class-conditional model, and
# what needs a number format that it is not loaded in.
UNFITTED = ("teacache", "adacache", "lemica", "uncached-bf16", "lazycache", "easycache")
WITHOUT_BUDGET = ("uncached", "uncached-bf16")
IN_BF16 = ("uncached-bf16", "lazycache", "easycache")
PUBLISHED = 0.0  # in the place of a budget: the setting that the method's authors recommend
WITHOUT_PUBLISHED = ("fewer-steps", "even", "lemica", "lemica-local")  # or not of others


def has_published_setting(method: str) -> bool:
    return method not in (*WITHOUT_BUDGET, *WITHOUT_PUBLISHED) and not method.startswith("omnicache")


@dataclass(frozen=True)
class Task:
    """One arm with one seed. reuse: wanted share of the steps reused; of a rival, also PUBLISHED."""

    model: str
    sampler: str
    steps: int
    reuse: float
    method: str
    seed: int
    samples: int

    @property
    def key(self) -> str:
        return "_".join(str(getattr(self, field.name)) for field in fields(self))

    @property
    def full_steps(self) -> int:
        return self.steps - round(self.reuse * self.steps)

    @property
    def reference(self) -> "Task":
        """The uncached arm that it is compared with: the same model in the same number format."""
        method = "uncached-bf16" if self.method in IN_BF16 else "uncached"
        return Task(self.model, self.sampler, self.steps, 0.0, method, self.seed, self.samples)

    @property
    def work(self) -> float:
        """Expected time, in units of one step of one picture."""
        evaluations = 2 if self.sampler == "heun" else 1
        return MODELS[self.model].cost * self.samples * self.full_steps * evaluations


def tasks(
    models: Iterable[str], samplers: Collection[str], steps: Collection[int], methods: Sequence[str],
    samples: int, seeds: Iterable[int] = SEEDS,
) -> list[Task]:  # fmt: skip
    """All arms, the most important first: settings, then seeds, then models, then budgets."""
    wanted = set(methods)
    # Their references come before them; without these there is nothing to compare with.
    wanted |= {"uncached"} if wanted - set(IN_BF16) else set()
    wanted |= {"uncached-bf16"} if wanted & set(IN_BF16) else set()
    settings = [each for each in (*FEW_STEPS, *SETTINGS) if each[0] in samplers and each[1] in steps]
    ordered = []
    for setting, seed, model in itertools.product(settings, seeds, models):
        if setting not in MODELS[model].settings:
            continue
        for method in (method for method in METHODS if method in wanted):
            if (method in OF_VIDEOS and model != "video") or (method in UNFITTED and model == "image_dit"):
                continue
            budgets = _budgets(method, setting[1])
            ordered += [Task(model, *setting, reuse, method, seed, samples) for reuse in budgets]
    return ordered


def _budgets(method: str, steps: int) -> tuple[float, ...]:
    if method in WITHOUT_BUDGET:
        return (0.0,)
    return (*BUDGETS.get(steps, USUAL_BUDGETS), *((PUBLISHED,) if has_published_setting(method) else ()))


def read_rows() -> list[dict]:
    """The finished rows."""
    return row_file.read(FOLDER / "rows.jsonl")


def forget(methods: Iterable[str]) -> None:
    """Takes the rows of these methods out, to be measured anew: after a change of the pack."""
    kept = [row for row in read_rows() if row["method"] not in set(methods)]
    (FOLDER / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


def append_row(row: dict) -> None:
    row_file.append(FOLDER / "rows.jsonl", row)


class Progress:
    """Says what is done and how long the rest will take, by the work done so far in this run."""

    def __init__(self, tasks: Sequence[Task], minutes: float) -> None:
        self._left = sum(task.work for task in tasks)
        self._count, self._number, self._done = len(tasks), 0, 0.0
        self._started = time.monotonic()
        self._minutes = minutes

    def allows(self, task: Task) -> bool:
        """Whether the task will be finished in the minutes that were given."""
        elapsed = time.monotonic() - self._started
        return elapsed + task.work * (elapsed / self._done if self._done else 0.0) <= 60 * self._minutes

    def says(self, task: Task) -> None:
        self._number += 1
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._started) / self._done * self._left
            left = (
                f", about {seconds / 3600:.1f} h left"
                if seconds > 5400
                else f", about {seconds / 60:.0f} min left"
            )
        budget = (
            f" {task.reuse:.0%}" if task.reuse else " published" if has_published_setting(task.method) else ""
        )
        print(
            f"[{self._number}/{self._count}{left}] {task.model} {task.sampler} {task.steps} steps, seed "
            f"{task.seed}: {task.method}{budget}",
            flush=True,
        )

    def did(self, task: Task) -> None:
        self._done += task.work
        self._left -= task.work


def run(wanted: Sequence[Task], minutes: float) -> None:
    """Measures what is not there yet."""
    done = {row["key"] for row in read_rows()}
    missing = [task for task in wanted if task.key not in done]
    print(f"{len(wanted)} arms, {len(wanted) - len(missing)} of them done", flush=True)
    import lemica_errors

    unmeasured = [
        task
        for task in missing
        if task.method == "lemica" and not lemica_errors.is_complete(task.model, task.steps)
    ]
    if unmeasured:
        print(f"{len(unmeasured)} arms of lemica are left out: run bench/lemica_errors.py first", flush=True)
        missing = [task for task in missing if task not in unmeasured]
    for model in sorted({task.model for task in missing}):
        if not (ROOT / "schedules" / f"omnicache_demo_{model}.json").exists():
            print(f"{model} is left out: train it, then run demo/make_profiles.py {model}", flush=True)
            missing = [task for task in missing if task.model != model]
    if not missing:
        return
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from quality_arms import Bench

    started, bench = time.monotonic(), Bench()
    for model in sorted({task.model for task in missing}):
        bench.prepare(model)
    # What prepares the models says nothing of how long the arms take.
    progress, failed = Progress(missing, minutes - (time.monotonic() - started) / 60), 0
    for task in missing:
        if not progress.allows(task):
            print(f"stopped: the next arm would not be finished within {minutes:g} minutes")
            break
        progress.says(task)
        try:
            append_row({"key": task.key, **asdict(task), **bench.measure(task)})
        except Exception:  # one arm must not cost a night; without a row it is tried again at the next start
            traceback.print_exc()
            failed += 1
        progress.did(task)
    if failed:
        print(f"{failed} arms failed, see above; they are tried again at the next start")


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
    parser.add_argument("--redo", nargs="+", choices=METHODS, default=[], help="measure these anew")
    parser.add_argument("--report", action="store_true", help="sample nothing")
    given = parser.parse_args()
    if given.samples < 4:
        parser.error("--samples: at least 4 are needed for a distance between distributions")
    if given.redo:
        forget(given.redo)
    if not given.report:
        wanted = tasks(given.model, given.sampler, given.steps, given.methods, given.samples, given.seeds)
        try:
            run(wanted, given.minutes)
        except KeyboardInterrupt:
            print("\nstopped; the arm that was running is not kept")
    import quality_report

    quality_report.write(read_rows(), FOLDER)


if __name__ == "__main__":
    main()
