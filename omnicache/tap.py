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

from .families import BlockPlace, Family, SideList

Callback = Callable[[dict[str, Any], dict[str, Any]], Any]
Forward = Callable[[], Tensor]


class BlockTap:
    """The block callbacks of one sampling run. Not shared between runs, and not between threads."""

    def __init__(
        self,
        family: Family,
        places: Sequence[BlockPlace],
        side_counts: Mapping[str, int],
        chained: Mapping[tuple[str, int], Callback],
    ) -> None:
        """side_counts: how many modules each side list of the family has. chained: callbacks other nodes had
        set on some blocks; they go on working whenever blocks are computed."""
        self._family = family
        self._capturing = False
        self._is_late = False
        self._exit: Tensor | None = None  # hidden state behind the last block, if it is read late
        self._replayed: Tensor | None = None  # the residual to add, while a reuse forward runs
        self._is_past_blocks = False
        self._keep_entry = False
        self._entry: Tensor | None = None  # hidden state before the first block
        self._residual: Tensor | None = None
        self.callbacks: dict[tuple[str, int], Callable] = {}
        for position, place in enumerate(places):
            callback = self._block_callback(places, position, chained.get(place.key))
            self.callbacks[place.key] = _outside_compiled_graphs(callback)
        for side in family.sides:
            callback = _outside_compiled_graphs(self._side_callback(side))
            self.callbacks.update({(side.attribute, i): callback for i in range(side_counts[side.attribute])})

    def is_in_place(self, replacements: Mapping[tuple[str, int], Callback]) -> bool:
        """Whether every block still calls this tap: another node may have displaced a callback for one
        pass."""
        return all(replacements.get(key) is callback for key, callback in self.callbacks.items())

    def capture(self, forward: Forward, late: bool = False) -> tuple[Tensor, Tensor | None]:
        """Runs a full forward. Returns its output and the residual (rows, tokens, width), None if the blocks
        were not reached.

        late: reads the hidden state behind the last block only when the forward has ended, so that what was
        added to it in place belongs to the residual.
        """
        self._capturing, self._is_late = True, late
        try:
            out = forward()
            if self._exit is not None:
                self._residual = torch.sub(self._exit, self._entry, out=self._entry)
            residual = self._residual
            return out, residual if residual is None else residual.movedim(self._family.row_axis, 0)
        finally:
            self._capturing, self._entry, self._exit, self._residual = False, None, None, None

    def replay(self, forward: Forward, residual: Tensor, writes_between: bool) -> Tensor:
        """Runs a forward in which the blocks are replaced by the residual.

        writes_between: something in this call adds in place into what a block returns. R holds such additions
        already, so they must land in a copy that is thrown away.
        """
        self._replayed = residual.movedim(0, self._family.row_axis)
        self._keep_entry = writes_between or self._family.writes_between
        self._is_past_blocks = False
        try:
            return forward()
        finally:
            self._replayed, self._entry = None, None

    def _block_callback(
        self, places: Sequence[BlockPlace], position: int, chained: Callback | None
    ) -> Callback:
        blocks = places[position].blocks
        name = "x" if blocks.is_bare else "img"
        is_first, is_last = position == 0, position == len(places) - 1

        def at_block(args: dict[str, Any], extra: dict[str, Any]) -> Any:
            if self._replayed is not None:
                out = self._skip(args, name, blocks.joined, is_first, is_last)
                return out[name] if blocks.is_bare else out
            if self._capturing and is_first:
                # Some families write into this tensor in their first block (Flux), so keep a copy.
                self._entry = args[name].clone()
            out = chained(args, extra) if chained is not None else extra["original_block"](args)
            if self._capturing and is_last and self._entry is not None:
                stream = out if blocks.is_bare else out[name]
                image = _image_tokens(stream, self._entry.shape[1], blocks.joined)
                if self._is_late:
                    self._exit = image
                else:
                    self._residual = torch.sub(image, self._entry, out=self._entry)
            return out

        return at_block

    def _skip(
        self, args: dict[str, Any], name: str, joined: str, is_first: bool, is_last: bool
    ) -> dict[str, Any]:
        if is_first:
            self._entry = args[name]
            if self._keep_entry and not is_last:
                return {**args, name: args[name].clone()}
        if not is_last:
            return args
        self._is_past_blocks = True
        image = self._entry + self._replayed
        return {**args, name: _with_image_tokens(args[name], image, joined)}

    def _side_callback(self, side: SideList) -> Callable[[Tensor, Callable[[], Any]], Any]:
        def at_side(first: Tensor, original: Callable[[], Any]) -> Any:
            # What comes after the last block is not part of the residual, so it is still computed.
            if self._replayed is None or self._is_past_blocks:
                return original()
            return first if side.answer == "input" else (first.new_zeros(()), first)

        return at_side


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
