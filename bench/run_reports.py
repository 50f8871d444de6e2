"""The reports of sampling runs, for benches. Call in_process.load_pack() first."""

from collections.abc import Iterator
from contextlib import contextmanager

from comfyui_omnicache.nodes import messages
from comfyui_omnicache.omnicache.report import RunReport


@contextmanager
def reports() -> Iterator[list[RunReport]]:
    """The reports of the runs in it, in place of lines in the log."""
    found: list[RunReport] = []
    announce, messages.announce = messages.announce, found.append
    try:
        yield found
    finally:
        messages.announce = announce
