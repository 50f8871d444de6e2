"""The paper's claims (OmniCache, arXiv 2508.16212), measured anew on the demo models in the real host.

    .host/venv/bin/python bench/paper.py             # all; an hour on 2 cores; stop and go on as you like
    .host/venv/bin/python bench/paper.py --report    # only the document and the figures, of what is there

Each finished measurement is a line of .host/paper/rows.jsonl and is not repeated. Writes docs/paper.md,
docs/paper_*.png and .svg, and bench/out/paper.json.
"""

import argparse
import sys
from pathlib import Path

import long_run
import paper_report
import row_file
from paper_tasks import FOLDER, ROWS, tasks

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]


def run() -> None:
    """Measures what is not there yet."""
    missing = long_run.missing(tasks(), ROWS, "measurements")
    if not missing:
        return
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    import paper_arms

    FOLDER.mkdir(parents=True, exist_ok=True)
    long_run.measure(missing, paper_arms.measure, ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="sample nothing")
    if not parser.parse_args().report:
        run()
    paper_report.write(row_file.by_key(ROWS), FOLDER)


if __name__ == "__main__":
    main()
