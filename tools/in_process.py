"""Loads the host, and packs for it, into this process, as the host itself would: for tests and benches."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from locations import ROOT, host_tree

PACK = "comfyui_omnicache"


def load_host() -> None:
    """Imports the host's modules, on the CPU where there is no GPU.

    The pack's nodes/ folder must not shadow the host's nodes.py, so the host's folder comes first on the path
    and its modules are imported at once; the pack's root is never on the path.
    """
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


def load_pack(name: str = PACK, folder: Path = ROOT) -> ModuleType:
    """Imports a node pack from its folder under a name of ours."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
