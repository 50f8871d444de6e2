"""What a long bench has measured so far: a file with one JSON object a line, so that it can be stopped and
started again."""

import json
from pathlib import Path


def read(path: Path) -> list[dict]:
    """The finished rows. A line that was cut off by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(path: Path, row: dict) -> None:
    """Raises ValueError for numbers that are not finite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line cut off by a crash must not swallow the next one.
    is_cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if is_cut else "") + json.dumps(row, allow_nan=False) + "\n")
