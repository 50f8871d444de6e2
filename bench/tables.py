"""Tables of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]


def best_in_bold(values: Mapping[str, Sequence[float | None]]) -> list[list[str]]:
    """Rows of a name and its numbers, one for each column; in bold what equals the greatest of its column as
    it is shown."""
    best = [
        number(max((value for value in column if value is not None), default=None))
        for column in zip(*values.values(), strict=True)
    ]
    rows = {name: [number(value) for value in of_row] for name, of_row in values.items()}
    return [
        [name, *(f"**{cell}**" if cell == top != "-" else cell for cell, top in zip(row, best, strict=True))]
        for name, row in rows.items()
    ]


def put_between(path: Path, command: str, lines: Sequence[str]) -> None:
    """Replaces what a document has between the two marks of a command. Raises ValueError without them."""
    mark = f"<!-- from {command} -->"
    before, first, rest = path.read_text(encoding="utf-8").partition(f"{mark}\n")
    _, second, after = rest.partition(mark)
    if not (first and second):
        raise ValueError(f"{path.name}: the two lines {mark!r} around the table are missing.")
    path.write_text(before + first + "\n".join(lines) + "\n" + second + after, encoding="utf-8")


def number(value: float | None, digits: int = 1) -> str:
    """With so many decimals; a dash for what is not there."""
    return "-" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
