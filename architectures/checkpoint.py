"""Reads what diffusers' save_pretrained writes: a config.json, and safetensors in one file or in several."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONFIG = "config.json"
_DEPTH = 3  # folders below a model folder that are looked into
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = ".safetensors.index.json"
_MAX_JSON_BYTES = 16_000_000


@dataclass(frozen=True)
class Kind:
    """What a menu offers. roots: the host's model folders. part: the subfolder of a pipeline. fits: whether a
    class of this name is one."""

    roots: tuple[str, ...]
    part: str
    fits: Callable[[str], bool]


def names(kind: Kind) -> list[str]:
    """What there is: folders below the host's, with / between. A pipeline counts as one folder."""
    return sorted(_found(kind))


def folder_of(name: str, kind: Kind) -> Path:
    """The folder with the config.json. Raises ValueError if there is none of this name any more."""
    found = _found(kind)
    if name not in found:
        places = " or ".join(path for root in kind.roots for path in folder_paths.get_folder_paths(root))
        raise ValueError(
            f"model_folder: there is no folder {name!r} with a {CONFIG} of the diffusers library below "
            f"{places}. Put the whole folder there, and reload the page to see it in the menu."
        )
    return found[name]


def read_json(file: Path) -> dict[str, Any]:
    """Raises ValueError if it cannot be read or is no JSON object."""
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("it is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        return content
    except (OSError, ValueError) as error:
        raise ValueError(f"model_folder: {file} cannot be read ({error}). Download it anew.") from error


def class_name_of(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    return str(config.get("_class_name") or (architectures[0] if architectures else ""))


@dataclass(frozen=True)
class Weights:
    """Tensors, and the file that each is from."""

    tensors: dict[str, Tensor]
    files: dict[str, Path]
    whole: Path  # the file, or the index of several


def read_weights(folder: Path) -> Weights:
    """All tensors of a folder. Raises ValueError if a file is missing, damaged or pickled."""
    whole, files = _weight_files(folder)
    tensors, sources = {}, {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"model_folder: {file} is missing; {whole.name} names it. Download it too.")
        try:
            content = comfy.utils.load_torch_file(str(file), safe_load=True)
        except Exception as error:  # the library has classes of its own for each kind of damage
            raise ValueError(
                f"model_folder: {file} is not a whole safetensors file ({error}). Download it anew."
            ) from error
        tensors.update(content)
        sources.update(dict.fromkeys(content, file))
    return Weights(tensors, sources, whole)


def fitting(weights: Weights, model: nn.Module) -> dict[str, Tensor]:
    """What the model has a place for. What it computes for itself, such as positions, is in older files too.

    Raises ValueError that names what is missing, too much or of another shape, and the file.
    """
    expected = model.state_dict()
    computed = {name for name, _ in model.named_buffers()} - expected.keys()
    missing = sorted(expected.keys() - weights.tensors.keys())
    if missing:
        raise ValueError(
            f"model_folder: {weights.whole} lacks {_some(missing)}. The file is not whole, or {CONFIG} "
            "beside it is of another model."
        )
    unknown = sorted(weights.tensors.keys() - expected.keys() - computed)
    if unknown:
        raise ValueError(
            f"model_folder: {weights.files[unknown[0]]} holds {_some(unknown)}, which the model has no place "
            f"for. {CONFIG} beside it may be of another model."
        )
    for name, tensor in expected.items():
        have = weights.tensors[name]
        if have.shape != tensor.shape:
            raise ValueError(
                f"model_folder: {name} in {weights.files[name]} has the shape {tuple(have.shape)}, and "
                f"{CONFIG} asks for {tuple(tensor.shape)}. They are of different models."
            )
    return {name: weights.tensors[name] for name in expected}


class WithoutWeights(TorchFunctionMode):
    """Weights of layers that are made in this context take no memory, nor time to fill; what a model computes
    for itself is real. Layers make their weights with torch.empty."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _weight_files(folder: Path) -> tuple[Path, list[Path]]:
    """The file or the index, and all files. Names with a variant (.fp16.) are taken where there is no
    other."""
    indices = sorted(folder.glob(f"*{_INDEX}"), key=lambda file: len(file.name))
    if indices:
        shards = read_json(indices[0]).get("weight_map", {}).values()
        # A name from a file: never a path.
        return indices[0], [folder / Path(str(shard)).name for shard in sorted(set(shards))]
    files = sorted(folder.glob("*.safetensors"), key=lambda file: len(file.name))
    if files:
        return files[0], [files[0]]
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
    if pickled:
        raise ValueError(
            f"model_folder: {folder / pickled[0]} is pickled, which can run code when it is read. Convert it "
            f'once, in that folder:  python -c "import torch, safetensors.torch as s; s.save_file('
            f"torch.load('{pickled[0]}', weights_only=True), 'diffusion_pytorch_model.safetensors')\""
        )
    raise ValueError(f"model_folder: there is no .safetensors file in {folder}. Download it too.")


def _found(kind: Kind) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in kind.roots:
        for base in folder_paths.get_folder_paths(root):
            for folder in _folders(Path(base)):
                if folder.name == kind.part and folder.parent != Path(base):
                    continue  # its pipeline stands for it
                part = folder / kind.part
                holder = part if (part / CONFIG).is_file() else folder
                if kind.fits(_class_name_in(holder / CONFIG)):
                    found.setdefault(folder.relative_to(base).as_posix(), holder)
    return found


def _folders(base: Path, depth: int = _DEPTH) -> Iterator[Path]:
    try:
        entries = [entry for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return
    for entry in entries:
        folder = Path(entry.path)
        yield folder
        if depth > 1:
            yield from _folders(folder, depth - 1)


def _class_name_in(file: Path) -> str:
    try:
        return _class_name_at(file, file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=512)
def _class_name_at(file: Path, changed: int) -> str:
    return class_name_of(read_json(file))
