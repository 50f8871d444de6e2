"""Loads the pack under the name comfyui_omnicache, and the host before it where a test needs it."""

import os
import sys
from pathlib import Path

# Before torch is imported: its threads would spin between the many small operations of tiny models, which on
# shared cores takes three times as long. The servers that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from in_process import load_host, load_pack  # noqa: E402


def pytest_configure(config) -> None:
    # The unit tests must pass without the host, so they run without it when they run alone.
    if any("unit" not in Path(argument.split("::")[0]).parts for argument in config.args):
        load_host()
        import torch

        torch.set_num_threads(1)  # tiny models only wait for a second one
    load_pack()
