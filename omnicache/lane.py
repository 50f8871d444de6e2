"""Lanes: what may share a cache, and what each keeps from step to step."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .storage import Kept


class LaneKey(NamedTuple):
    """row: the conditioning row and context window, as the host names them. stage: which of the row's
    evaluations within one step, for samplers that need several."""

    row: Hashable
    stage: int


@dataclass(frozen=True)
class Rows:
    """A lane's rows of a tensor that the lanes evaluated together share; nothing is copied until they
    part."""

    kept: Kept
    start: int
    count: int

    def view(self) -> Tensor:
        return self.kept.whole()[self.start : self.start + self.count]

    @staticmethod
    def split(kept: Kept, parts: int) -> "list[Rows]":
        count = kept.rows // parts
        return [Rows(kept, part * count, count) for part in range(parts)]

    @staticmethod
    def join(parts: "Sequence[Rows]") -> Tensor:
        """One tensor with the rows of all parts in order: the shared one itself if they are just that."""
        kept, position = parts[0].kept, 0
        for part in parts:
            if part.kept is not kept or part.start != position:
                return torch.cat([part.view() for part in parts])
            position += part.count
        whole = kept.whole()
        return whole if position == whole.shape[0] else whole[:position]


# What one lane holds of what a forward left to be replayed, tensor by tensor.
Cache = tuple[Rows, ...]


class JoinedCaches(Sequence[Tensor]):
    """The caches of lanes that are evaluated together, as one forward replays them. Each tensor is joined,
    and fetched from where it is kept, when it is asked for."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self._tensors = tuple(zip(*caches, strict=True))

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, index: int) -> Tensor:
        return Rows.join(self._tensors[index])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def split_captured(captured: Sequence[Kept], lanes: int) -> list[Cache]:
    """What each of the lanes evaluated together holds of what their forward left."""
    parts = [Rows.split(kept, lanes) for kept in captured]
    return [tuple(part[lane] for part in parts) for lane in range(lanes)]


class Signature(NamedTuple):
    """What must not change for a cache to stay usable: shape of a lane's rows, dtype and device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor, lanes: int) -> "Signature":
        return cls((x.shape[0] // lanes, *x.shape[1:]), x.dtype, x.device)


class Lane:
    """The cache of one lane, from its last full evaluation, and the noise measured there.

    step: the full step the cache is from. noise: q in raw output, measured at that step with the cache of
    source_step; None if it was not measured.
    """

    def __init__(self) -> None:
        self.signature: Signature | None = None
        self.cache: Cache | None = None
        self.step = -1
        self.noise: Rows | None = None
        self.source_step = -1

    def has_cache(self, signature: Signature) -> bool:
        return self.cache is not None and self.signature == signature

    def refresh(self, signature: Signature, cache: Cache, step: int, noise: Rows | None) -> None:
        """Takes what a full evaluation at this step gave."""
        self.source_step = self.step if noise is not None else -1
        self.signature, self.cache, self.step, self.noise = signature, cache, step, noise

    def kept(self) -> list[Kept]:
        """What it keeps; lanes evaluated together share these."""
        rows = [*(self.cache or ()), *([self.noise] if self.noise is not None else [])]
        return [part.kept for part in rows]
