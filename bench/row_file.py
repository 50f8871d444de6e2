"""What a long bench has measured so far: a file with one JSON object a line, so that it can be stopped and
started again."""

import json
from collections.abc import Callable
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


def by_key(path: Path) -> dict[str, dict]:
    """The finished rows by their key, of several with one key the last."""
    return {row["key"]: row for row in read(path)}


def append(path: Path, row: dict) -> None:
    """Raises ValueError for numbers that are not finite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line cut off by a crash must not swallow the next one.
    is_cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if is_cut else "") + json.dumps(row, allow_nan=False) + "\n")


def forget(path: Path, is_forgotten: Callable[[dict], bool]) -> None:
    """Takes rows out, to be measured anew: after a change of the pack."""
    kept = [row for row in read(path) if not is_forgotten(row)]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
