"""Loads the pack under the name comfyui_omnicache, and the host before it where there is one.

The pack's nodes/ folder must not shadow the host's nodes.py, so the host's folder comes first on the path and
its modules are imported at once; the pack's root is never on the path.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from locations import host_tree  # noqa: E402


def _load_host() -> None:
    sys.path.insert(0, str(host_tree()))
    arguments, sys.argv = sys.argv, sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch
    from comfy.cli_args import args

    args.cpu = args.cpu or not torch.cuda.is_available()
    # In this order: comfy/utils.py hides the host's utils package from imports that come after nodes.py.
    for name in ("utils.install_util", "server", "nodes"):
        importlib.import_module(name)
    sys.argv = arguments


def _load_pack() -> None:
    spec = importlib.util.spec_from_file_location(
        "comfyui_omnicache", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def pytest_configure(config) -> None:
    # The unit tests must pass without the host, so they run without it when they run alone.
    if any("unit" not in Path(argument.split("::")[0]).parts for argument in config.args):
        _load_host()
    _load_pack()
