"""Which settings to leave alone and which to change: filters, granularity, guidance, constraints and transfer
of profiles, each on both demo models in the real host.

    .host/venv/bin/python bench/studies.py                 # everything; stop and start again as you like
    .host/venv/bin/python bench/studies.py --model image --study filters --minutes 20
    .host/venv/bin/python bench/studies.py --report        # only the tables, of what is there

Each finished case is a line of .host/studies/rows.jsonl and is not sampled again. At the end of each run
docs/studies.md and bench/out/studies.json are written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import long_run
import row_file
import studies_report
from studies_cases import MODELS, ROWS, STUDIES, Case, cases

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]


def run(wanted: Sequence[Case], minutes: float) -> None:
    """Measures what is not there yet, those of one uncached run together."""
    missing = long_run.missing(wanted, ROWS, "cases")
    if not missing:
        return
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from studies_arms import Bench

    long_run.measure(missing, Bench(row_file.read(ROWS)).measure, ROWS, minutes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--report", action="store_true", help="sample nothing")
    given = parser.parse_args()
    if not given.report:
        run(cases(given.model, given.study), given.minutes)
    studies_report.write(row_file.by_key(ROWS))


if __name__ == "__main__":
    main()
