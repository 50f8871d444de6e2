"""Where the host and its Python are: the embedded ones, or the user's by COMFYUI_PATH."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST_FOLDER = ROOT / ".host"
EMBEDDED_TREE = HOST_FOLDER / "ComfyUI"
EMBEDDED_VENV = HOST_FOLDER / "venv"
EMBEDDED_NODE = HOST_FOLDER / "nodejs" / "bin"  # on the path of every make target; may not be there


def is_embedded() -> bool:
    return not os.environ.get("COMFYUI_PATH")


def host_tree() -> Path:
    """The ComfyUI folder. Exits with a message if COMFYUI_PATH is not one."""
    if is_embedded():
        return EMBEDDED_TREE
    tree = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
    if not (tree / "main.py").is_file() or not (tree / "comfy").is_dir():
        sys.exit(
            f"COMFYUI_PATH is {tree}, which holds no ComfyUI (no main.py and comfy/ there). Correct or "
            "unset it."
        )
    return tree


def host_python() -> Path:
    """The Python that runs the host: COMFYUI_PYTHON, the tree's own environment, or the one running this."""
    if is_embedded():
        return EMBEDDED_VENV / "bin" / "python"
    if os.environ.get("COMFYUI_PYTHON"):
        return Path(os.environ["COMFYUI_PYTHON"])
    for name in ("venv", ".venv"):
        python = host_tree() / name / "bin" / "python"
        if python.exists():
            return python
    return Path(sys.executable)
