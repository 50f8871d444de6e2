"""The errors that bench/lemica_errors.py measured, one line for each run of reused steps."""

from pathlib import Path

import numpy as np

import row_file
from quality_tasks import FOLDER

LONGEST = 7  # distance between two full steps, as in the published lists


def edges(steps: int) -> list[tuple[int, int]]:
    """All runs of reused steps, as the full steps around them. Neighbours have none between them."""
    return [(i, j) for i in range(steps) for j in range(i + 2, min(i + LONGEST, steps - 1) + 1)]


def path_of(model: str, steps: int) -> Path:
    return FOLDER / f"lemica_{model}_{steps}.jsonl"


def read(model: str, steps: int) -> dict[tuple[int, int], float]:
    return {(row["from"], row["to"]): row["error"] for row in row_file.read(path_of(model, steps))}


def is_complete(model: str, steps: int) -> bool:
    return set(edges(steps)) <= set(read(model, steps))


def table(model: str, steps: int) -> np.ndarray:
    """(steps, steps) measured errors, for omnicache.rivals.minimax_path."""
    errors = np.zeros((steps, steps))
    for (i, j), error in read(model, steps).items():
        errors[i, j] = error
    return errors
