"""Stands around the transformer blocks of one forward: lets them run, captures what they add, or replays it.

The residual R is the sum over all blocks of (block output - block input), which telescopes to the hidden
state behind the last block minus the one before the first. If every attention and MLP output of every block
is reused after its gate, the paper's per-block caching (Eq. 2) is exactly h_in + R: one tensor instead of two
or three a block.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .families import BlockPlace

Callback = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
Forward = Callable[[], Tensor]


class BlockTap:
    """The block callbacks of one sampling run. Not shared between runs, and not between threads."""

    def __init__(self, places: Sequence[BlockPlace], chained: Mapping[tuple[str, int], Callback]):
        """chained: callbacks other nodes had set on some blocks; they go on working whenever blocks are
        computed."""
        self._places = tuple(places)
        self._capturing = False
        self._replayed: Tensor | None = None  # the residual to add, while a reuse forward runs
        self._keep_entry = False
        self._entry: Tensor | None = None  # hidden state before the first block
        self._residual: Tensor | None = None
        self.callbacks: dict[tuple[str, int], Callback] = {}
        for position, place in enumerate(self._places):
            key = (place.kind, place.index)
            self.callbacks[key] = _outside_compiled_graphs(self._callback(position, chained.get(key)))

    def is_in_place(self, replacements: Mapping[tuple[str, int], Callback]) -> bool:
        """Whether every block still calls this tap: another node may have displaced a callback for one
        pass."""
        return all(replacements.get(key) is callback for key, callback in self.callbacks.items())

    def capture(self, forward: Forward) -> tuple[Tensor, Tensor | None]:
        """Runs a full forward. Returns its output and the residual (rows, tokens, width), None if the blocks
        were not reached."""
        self._capturing = True
        try:
            return forward(), self._residual
        finally:
            self._capturing, self._entry, self._residual = False, None, None

    def replay(self, forward: Forward, residual: Tensor, blocks_are_followed_by_writes: bool) -> Tensor:
        """Runs a forward in which the blocks are replaced by the residual.

        blocks_are_followed_by_writes: the host adds ControlNet outputs in place into what a block returns. R
        holds these already, so they must land in a copy that is thrown away.
        """
        self._replayed, self._keep_entry = residual, blocks_are_followed_by_writes
        try:
            return forward()
        finally:
            self._replayed, self._entry = None, None

    def _callback(self, position: int, chained: Callback | None) -> Callback:
        place = self._places[position]
        is_first, is_last = position == 0, position == len(self._places) - 1

        def at_block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
            if self._replayed is not None:
                return self._skip(args, place, is_first, is_last)
            if self._capturing and is_first:
                # Some families write into this tensor in their first block (Flux), so keep a copy.
                self._entry = args["img"].clone()
            out = chained(args, extra) if chained is not None else extra["original_block"](args)
            if self._capturing and is_last and self._entry is not None:
                image = _image_tokens(out["img"], self._entry.shape[1], place.joined)
                self._residual = torch.sub(image, self._entry, out=self._entry)
            return out

        return at_block

    def _skip(self, args: dict[str, Any], place: BlockPlace, is_first: bool, is_last: bool) -> dict[str, Any]:
        if is_first:
            self._entry = args["img"]
            if self._keep_entry:
                return {**args, "img": args["img"].clone()}
        if not is_last:
            return args
        image = self._entry + self._replayed
        return {**args, "img": _with_image_tokens(args["img"], image, place.joined)}


def _image_tokens(stream: Tensor, count: int, joined: str) -> Tensor:
    if joined == "text-image":
        return stream[:, -count:]
    if joined == "image-text":
        return stream[:, :count]
    return stream


def _with_image_tokens(stream: Tensor, image: Tensor, joined: str) -> Tensor:
    count = image.shape[1]
    if joined == "text-image":
        return torch.cat((stream[:, :-count], image), dim=1)
    if joined == "image-text":
        return torch.cat((image, stream[:, count:]), dim=1)
    return image


def _outside_compiled_graphs(callback: Callback) -> Callback:
    """Keeps torch.compile from tracing the callback while the block inside it is still compiled.

    recursive=False matters: with the default, the compiled layers inside run eager without a word. Where
    nothing has imported the compiler yet nothing is compiled, and importing it would cost seconds.
    """
    if "torch._dynamo" not in sys.modules:
        return callback
    return torch.compiler.disable(callback, recursive=False)
