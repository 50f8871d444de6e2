"""Gives the host's block callbacks to families that have none.

The host offers ("double_block", 3)-like callbacks in transformer_options for about half of its families. In
the others, and for modules that run beside the blocks, the pack puts an object patch on the module's forward,
which does the same: it looks for a callback in the options of the call and hands over to it. The patch itself
holds no state, so it does nothing in runs that carry no callbacks.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import torch

from ..omnicache.families import BlockList, Family, modules_of

Forward = Callable[..., Any]

# transformer_options of the call in progress, for families whose forward does not hand them on.
_OPTIONS: ContextVar[dict[str, Any] | None] = ContextVar("omnicache_transformer_options", default=None)


def bridge(model, family: Family) -> None:
    """Puts the object patches on a ModelPatcher. The host takes them off again when it unloads it."""
    if family.hides_options:
        _patch(model, "diffusion_model", _remembering_options)
    for blocks in family.lists:
        if blocks.kind is None:
            _patch_list(model, blocks.attribute, partial(_bridged_block, blocks=blocks))
    for side in family.sides:
        _patch_list(model, side.attribute, partial(_bridged_side, attribute=side.attribute))


def _patch_list(model, attribute: str, bridged: Callable[..., Forward]) -> None:
    modules = modules_of(model.model.diffusion_model, attribute)
    for index, (name, _) in enumerate(modules):
        _patch(model, f"diffusion_model.{name}", partial(bridged, index=index))


def _patch(model, name: str, bridged: Callable[[Forward], Forward]) -> None:
    path = f"{name}.forward"
    forward = model.get_model_object(path)
    if not hasattr(forward, "is_omnicache_bridge"):
        forward = bridged(forward)
        forward.is_omnicache_bridge = True
        model.add_object_patch(path, forward)


def _remembering_options(original: Forward) -> Forward:
    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        token = _OPTIONS.set(kwargs.get("transformer_options"))
        try:
            return original(*args, **kwargs)
        finally:
            _OPTIONS.reset(token)

    return forward


def _bridged_block(original: Forward, *, blocks: BlockList, index: int) -> Forward:
    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        callback = _callback(kwargs, (blocks.attribute, index))
        if callback is None:
            return original(*args, **kwargs)

        def original_block(streams: dict[str, Any]) -> dict[str, Any]:
            if not blocks.image:
                return {"img": original(streams["img"], *args[1:], **kwargs)}
            renamed = {blocks.image: streams["img"]}
            if not blocks.text:
                return {"img": original(*args, **{**kwargs, **renamed})}
            renamed[blocks.text] = streams["txt"]
            image, text = original(*args, **{**kwargs, **renamed})
            return {"img": image, "txt": text}

        streams = {"img": kwargs[blocks.image] if blocks.image else args[0]}
        if blocks.text:
            streams["txt"] = kwargs[blocks.text]
        out = callback(streams, {"original_block": original_block})
        return (out["img"], out["txt"]) if blocks.text else out["img"]

    return forward


def _bridged_side(original: Forward, *, attribute: str, index: int) -> Forward:
    @wraps(original)
    def forward(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        callback = _callback(kwargs, (attribute, index))
        if callback is None:
            return original(first, *args, **kwargs)
        return callback(first, lambda: original(first, *args, **kwargs))

    return forward


def _callback(kwargs: dict[str, Any], key: tuple[str, int]) -> Callable | None:
    options = kwargs.get("transformer_options") or _OPTIONS.get() or {}
    return options.get("patches_replace", {}).get("dit", {}).get(key)
