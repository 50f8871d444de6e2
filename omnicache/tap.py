"""Stands around the transformer blocks of one forward: lets them run, captures what they add, or replays it.

BlockTap is what the two granularities have in common. StackTap takes all blocks as one: the residual R is
the sum over all blocks of (block output - block input), which telescopes to the hidden state behind the last
block minus the one before the first. If every attention and MLP output of every block is reused after its
gate, the paper's per-block caching (Eq. 2) is exactly h_in + R: one tensor instead of two or three a block.
branch_tap.py has the granularity that keeps those outputs apart.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from .families import BlockPlace, Family, SideList
from .plan import EVERYTHING, Parts
from .storage import Kept

Callback = Callable[[dict[str, Any], dict[str, Any]], Any]
Forward = Callable[[], Tensor]
Keep = Callable[[Tensor], Kept]

# What a forward leaves to be replayed, in the order in which it is made. The first axis of each is the rows.
Captured = tuple[Kept, ...]


@dataclass(frozen=True)
class Blocks:
    """What a tap stands around, in the model that executes.

    side_counts: how many modules each side list of the family has. chained: callbacks other nodes had set on
    some blocks; they go on working whenever blocks are computed. on_size: called once, in the first forward
    that is captured, with about how many bytes are kept of each row.
    """

    family: Family
    places: tuple[BlockPlace, ...]
    side_counts: Mapping[str, int] = field(default_factory=dict)
    chained: Mapping[tuple[str, int], Callback] = field(default_factory=dict)
    on_size: Callable[[int], None] = lambda size: None


class BlockTap(ABC):
    """The block callbacks of one sampling run. Not shared between runs, and not between threads.

    rows: of the call in progress; whoever makes the calls sets it. It counts only where a family folds frames
    or tokens into the rows.
    """

    # Whether what others add to the stream between the blocks, such as ControlNets, is in what is captured.
    holds_additions: ClassVar[bool]

    def __init__(self, blocks: Blocks) -> None:
        self._family = blocks.family
        self._places = blocks.places
        self._on_size: Callable[[int], None] | None = blocks.on_size
        self.rows = 1
        self.callbacks: dict[tuple[str, int], Callable] = {}
        for position, place in enumerate(blocks.places):
            callback = self._block_callback(position, blocks.chained.get(place.key))
            self.callbacks[place.key] = outside_compiled_graphs(callback)
        for side in blocks.family.sides:
            callback = outside_compiled_graphs(self._side_callback(side))
            keys = ((side.attribute, index) for index in range(blocks.side_counts[side.attribute]))
            self.callbacks.update(dict.fromkeys(keys, callback))

    def is_in_place(self, replacements: Mapping[tuple[str, int], Callback]) -> bool:
        """Whether every block still calls this tap: another node may have displaced a callback for one
        pass."""
        return all(replacements.get(key) is callback for key, callback in self.callbacks.items())

    @abstractmethod
    def capture(self, forward: Forward, keep: Keep, late: bool = False) -> tuple[Tensor, Captured | None]:
        """Runs a full forward. Returns its output and what it leaves to be replayed, None if the blocks were
        not reached.

        late: something is added in place to what the last block returns; it belongs to what is captured.
        """

    @abstractmethod
    def replay(
        self,
        forward: Forward,
        cached: Sequence[Tensor],
        parts: Parts = EVERYTHING,
        writes_between: bool = False,
    ) -> Tensor:
        """Runs a forward in which what was captured stands for what would be computed.

        parts: what is reused. writes_between: something in this call adds in place into what a block returns.
        """

    @abstractmethod
    def _block_callback(self, position: int, chained: Callback | None) -> Callback:
        """What the host calls in place of the block at this position."""

    @abstractmethod
    def _side_callback(self, side: SideList) -> Callable[[Tensor, Callable[[], Any]], Any]:
        """What the bridge calls in place of each module of a side list."""

    def _unfolded(self, stream: Tensor, position: int) -> Tensor:
        """The stream of the block at a position with rows of its own: (rows, frames, tokens, width) where
        frames or tokens are folded into them."""
        folded = self._places[position].blocks.folded
        if folded == "no":
            return stream
        stream = stream.unflatten(0, (self.rows, -1))
        return stream if folded == "frames" else stream.transpose(1, 2)

    def _folded(self, stream: Tensor, position: int) -> Tensor:
        """The stream as the block at a position has it."""
        folded = self._places[position].blocks.folded
        if folded == "no":
            return stream
        return (stream if folded == "frames" else stream.transpose(1, 2)).flatten(0, 1)

    def _tell_size(self, bytes_of_row: int) -> None:
        if self._on_size is not None:
            on_size, self._on_size = self._on_size, None
            on_size(bytes_of_row)


class StackTap(BlockTap):
    """All blocks as one: keeps the residual of the whole stack, (rows, tokens, width)."""

    holds_additions = True

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self._capturing = False
        self._is_late = False
        self._exit: Tensor | None = None  # hidden state behind the last block, if it is read late
        self._replayed: Tensor | None = None  # the residual to add, while a reuse forward runs
        self._is_past_blocks = False
        self._keep_entry = False
        self._entry: Tensor | None = None  # hidden state before the first block
        self._residual: Tensor | None = None

    def capture(self, forward: Forward, keep: Keep, late: bool = False) -> tuple[Tensor, Captured | None]:
        self._capturing, self._is_late = True, late
        try:
            out = forward()
            if self._exit is not None:
                self._residual = torch.sub(self._exit, self._entry, out=self._entry)
            if self._residual is None:
                return out, None
            kept = keep(self._residual.movedim(self._family.row_axis, 0))
            self._tell_size(kept.nbytes // kept.rows)
            return out, (kept,)
        finally:
            self._capturing, self._entry, self._exit, self._residual = False, None, None, None

    def replay(
        self,
        forward: Forward,
        cached: Sequence[Tensor],
        parts: Parts = EVERYTHING,
        writes_between: bool = False,
    ) -> Tensor:
        """R holds what is added in place between the blocks, so such additions must land in a copy that is
        thrown away. parts: of no account, all blocks are reused."""
        self._replayed = cached[0].movedim(0, self._family.row_axis)
        self._keep_entry = writes_between or self._family.writes_between
        self._is_past_blocks = False
        try:
            return forward()
        finally:
            self._replayed, self._entry = None, None

    def _block_callback(self, position: int, chained: Callback | None) -> Callback:
        blocks = self._places[position].blocks
        name = blocks.stream
        is_first, is_last = position == 0, position == len(self._places) - 1

        def at_block(args: dict[str, Any], extra: dict[str, Any]) -> Any:
            if self._replayed is not None:
                out = self._skip(args, name, blocks.joined, position)
                return out[name] if blocks.is_bare else out
            if self._capturing and is_first:
                # Some families write into this tensor in their first block (Flux), so keep a copy.
                self._entry = self._unfolded(args[name], position).clone()
            out = chained(args, extra) if chained is not None else extra["original_block"](args)
            if self._capturing and is_last and self._entry is not None:
                stream = self._unfolded(out if blocks.is_bare else out[name], position)
                image = _image_tokens(stream, self._entry.shape[1], blocks.joined)
                if self._is_late:
                    self._exit = image
                else:
                    self._residual = torch.sub(image, self._entry, out=self._entry)
            return out

        return at_block

    def _skip(self, args: dict[str, Any], name: str, joined: str, position: int) -> dict[str, Any]:
        is_last = position == len(self._places) - 1
        if position == 0:
            self._entry = self._unfolded(args[name], position)
            if self._keep_entry and not is_last:
                return {**args, name: args[name].clone()}
        if not is_last:
            return args
        self._is_past_blocks = True
        image = self._folded(self._entry + self._replayed, position)
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


def outside_compiled_graphs(callback: Callback) -> Callback:
    """Keeps torch.compile from tracing the callback while the block inside it is still compiled.

    recursive=False matters: with the default, the compiled layers inside run eager without a word. Where
    nothing has imported the compiler yet nothing is compiled, and importing it would cost seconds.
    """
    if "torch._dynamo" not in sys.modules:
        return callback
    return torch.compiler.disable(callback, recursive=False)
