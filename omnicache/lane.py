"""Lanes: what may share a cache, and what each keeps from step to step."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .forecast import REUSE, Weights, shares_of_older
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
    and fetched from where it is kept, when it is asked for; a forecast is made then too."""

    def __init__(
        self,
        caches: Sequence[Cache],
        changes: Sequence[Sequence[Cache]] = (),
        weights: Sequence[Weights] = (),
    ) -> None:
        """caches: of each lane the newest. changes: of each lane, by how much each cache differs from the one
        before it, newest first. weights: of each lane, of its newest cache and the older ones; without them,
        the newest cache is replayed as it is."""
        self._caches = caches
        self._changes = tuple(changes)
        self._weights = tuple(weights) or (REUSE,) * len(caches)

    def __len__(self) -> int:
        return len(self._caches[0])

    def __getitem__(self, index: int) -> Tensor:
        if len(set(self._weights)) == 1:
            return self._continued(range(len(self._caches)), index)
        return torch.cat([self._continued((lane,), index) for lane in range(len(self._caches))])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def _continued(self, lanes: Sequence[int], index: int) -> Tensor:
        """One tensor of lanes of the same weights. An older cache is the newest less the changes since, and
        the weights add up to 1."""
        total, own = Rows.join([self._caches[lane][index] for lane in lanes]), None
        for number, share in enumerate(shares_of_older(self._weights[lanes[0]])):
            change = Rows.join([self._changes[lane][number][index] for lane in lanes])
            total = own = torch.sub(total, change, alpha=share, out=own)
        return total


def split_captured(captured: Sequence[Kept], lanes: int) -> list[Cache]:
    """What each of the lanes evaluated together holds of what their forward left."""
    parts = [Rows.split(kept, lanes) for kept in captured]
    return [tuple(part[lane] for part in parts) for lane in range(lanes)]


def split_renewed(renewed: Sequence[Kept | None], lanes: int) -> list[tuple[Rows | None, ...]]:
    """The same of a forward that left only some tensors anew, None for the others."""
    parts = [Rows.split(kept, lanes) if kept is not None else [None] * lanes for kept in renewed]
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

    steps: the full steps that the cache and those before it are from, newest first. changes: by how much each
    of these caches differs from the one before it. noise: q in raw output, measured at the last full step
    with the cache of source_step; None if it was not measured. beside: what acted on the lane beside its
    conditioning when the cache was made; where that changes the cache jumps, and is not continued.
    """

    def __init__(self) -> None:
        self.signature: Signature | None = None
        self.cache: Cache | None = None
        self.steps: tuple[int, ...] = ()
        self.changes: tuple[Cache, ...] = ()
        self.noise: Rows | None = None
        self.source_step = -1
        self.beside: Hashable = None

    @property
    def step(self) -> int:
        """The full step the cache is from; -1 if there is none."""
        return self.steps[0] if self.steps else -1

    def has_cache(self, signature: Signature) -> bool:
        return self.cache is not None and self.signature == signature

    def goes_on_with(
        self, signature: Signature, captured: Sequence[Kept], step: int, beside: Hashable
    ) -> bool:
        """Whether what was captured at this step can be compared with the cache tensor by tensor: text may be
        padded otherwise where other rows are evaluated with it, a sampler may go back, and what acts beside
        the conditioning may have changed, such as a ControlNet that ended."""
        if not self.has_cache(signature) or step <= self.step or beside != self.beside:
            return False
        return [kept.data.shape[1:] for kept in captured] == [part.kept.data.shape[1:] for part in self.cache]

    def refresh(
        self,
        signature: Signature,
        cache: Cache,
        change: Cache | None,
        step: int,
        noise: Rows | None,
        beside: Hashable,
    ) -> None:
        """Takes what a full evaluation at this step gave. change: from the last cache, where caches before it
        are kept."""
        self.source_step = self.step if noise is not None else -1
        self.steps = (step, *self.steps) if change is not None else (step,)
        self.changes = (change, *self.changes) if change is not None else ()
        self.signature, self.cache, self.noise = signature, cache, noise
        self.beside = beside

    def renew(self, parts: Sequence[Rows | None]) -> None:
        """Takes what was computed at a partly reused step; None where the cache stays."""
        self.cache = tuple(new or old for new, old in zip(parts, self.cache, strict=True))

    def forget_older(self, generations: int) -> None:
        """Keeps so many caches at most."""
        self.steps, self.changes = self.steps[:generations], self.changes[: generations - 1]

    def kept(self) -> list[Kept]:
        """What it keeps; lanes evaluated together share these."""
        rows = [part for cache in (self.cache or (), *self.changes) for part in cache]
        return [part.kept for part in (*rows, *([self.noise] if self.noise is not None else []))]
