"""Gives the host's block callbacks to families that have none.

The host offers ("double_block", 3)-like callbacks in transformer_options for about half of its families. In
the others, and for modules that run beside the blocks, the pack puts an object patch on the module's forward,
which does the same: it looks for a callback in the options of the call and hands over to it. Inside the
blocks, where a granularity of branches is asked for, the patch asks the tap of the run whose block is being
computed. A patch itself holds no state, so it does nothing in runs that carry no callbacks.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from ..omnicache.branch_tap import current_tap
from ..omnicache.families import BlockList, Branch, Family, UnknownModel, modules_of
from ..omnicache.tap import outside_compiled_graphs

Forward = Callable[..., Any]

# transformer_options of the call in progress, for families whose forward does not hand them on.
_OPTIONS: ContextVar[dict[str, Any] | None] = ContextVar("omnicache_transformer_options", default=None)


def bridge(model, family: Family, with_branches: bool) -> None:
    """Puts the object patches on a ModelPatcher. The host takes them off again when it unloads it.

    with_branches: also inside the blocks.
    """
    if family.hides_options:
        _patch(model, "diffusion_model", _remembering_options)
    for blocks in family.lists:
        if blocks.kind is None:
            _patch_list(model, blocks.attribute, partial(_bridged_block, blocks=blocks))
        if with_branches:
            _patch_branches(model, blocks)
    for side in family.sides:
        _patch_list(model, side.attribute, partial(_bridged_side, attribute=side.attribute))


def skip_unneeded_attention(options: dict[str, Any]) -> None:
    """Has the host ask the tap of the block in which it is about to compute attention, if it is in one."""
    others = options.get("optimized_attention_override")

    def attention(function: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        tap = current_tap()
        if tap is not None and tap.skips_attention():
            return _no_attention(*args, **kwargs)
        return others(function, *args, **kwargs) if others is not None else function(*args, **kwargs)

    options["optimized_attention_override"] = outside_compiled_graphs(attention)


def _no_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    *_: Any,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **__: Any,
) -> torch.Tensor:
    """Zeros in the shape that the host's attention functions give, without any memory behind them."""
    tokens, size = q.shape[-2], q.shape[-1] if skip_reshape else q.shape[-1] // heads
    shape = (heads, tokens, size) if skip_output_reshape else (tokens, heads * size)
    return q.new_zeros(()).expand(q.shape[0], *shape)


def _patch_list(model, attribute: str, bridged: Callable[..., Forward]) -> None:
    modules = modules_of(model.model.diffusion_model, attribute)
    for index, (name, _) in enumerate(modules):
        _patch(model, f"diffusion_model.{name}", partial(bridged, index=index))


def _patch(model, name: str, bridged: Callable[[Forward], Forward]) -> None:
    path = f"{name}.forward"
    _check_is_the_models_own(model, name)
    forward = model.get_model_object(path)
    if not hasattr(forward, "is_omnicache_bridge"):
        forward = bridged(forward)
        forward.is_omnicache_bridge = True
        model.add_object_patch(path, forward)


def _check_is_the_models_own(model, name: str) -> None:
    """Raises UnknownModel for a module that another node has replaced: the host would put back the forward of
    the replacement, on the original."""
    for path in model.object_patches:
        if name == path or name.startswith(f"{path}."):
            raise UnknownModel(
                f"model: another node has replaced its {path}, as nodes that compile single blocks do, so it "
                "runs uncached. Put that node behind OmniCache's, or take ComfyUI's TorchCompileModel."
            )


def _patch_branches(model, blocks: BlockList) -> None:
    for name, block in modules_of(model.model.diffusion_model, blocks.attribute):
        modules = dict(block.named_modules())
        for branch in blocks.branches:
            for output in filter(modules.__contains__, branch.outputs):
                is_leading = output == branch.outputs[0]
                bridged = partial(_bridged_output, branch=branch, is_leading=is_leading)
                _patch(model, f"diffusion_model.{name}.{output}", bridged)
            for feed in filter(modules.__contains__, branch.feeds):
                is_leading, layer = feed == branch.feeds[0], modules[feed]
                bridged = partial(_bridged_feed, branch=branch, is_leading=is_leading, layer=layer)
                _patch(model, f"diffusion_model.{name}.{feed}", bridged)


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


def _bridged_output(original: Forward, *, branch: Branch, is_leading: bool) -> Forward:
    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        tap = current_tap()
        if tap is None:
            return original(*args, **kwargs)
        first = args[0] if args else next(iter(kwargs.values()))
        return tap.at_output(branch, first, is_leading, lambda: original(*args, **kwargs))

    return forward


def _bridged_feed(original: Forward, *, branch: Branch, is_leading: bool, layer: nn.Linear) -> Forward:
    @wraps(original)
    def forward(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        tap = current_tap()
        if tap is None:
            return original(first, *args, **kwargs)
        width = layer.out_features
        return tap.at_feed(branch, first, is_leading, width, lambda: original(first, *args, **kwargs))

    return forward


def _callback(kwargs: dict[str, Any], key: tuple[str, int]) -> Callable | None:
    options = kwargs.get("transformer_options") or _OPTIONS.get() or {}
    return options.get("patches_replace", {}).get("dit", {}).get(key)
