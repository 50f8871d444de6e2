"""Lanes: what may share a cache, and what each keeps from step to step."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .forecast import REUSE, Weights, shares
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

    def __init__(self, histories: Sequence[Sequence[Cache]], weights: Sequence[Weights] = ()) -> None:
        """histories: the caches of each lane, newest first. weights: of each lane, for as many of its caches
        as there are; without them, the newest cache is replayed as it is."""
        self._weights = tuple(weights) or (REUSE,) * len(histories)
        self._histories = [history[: len(own)] for history, own in zip(histories, self._weights, strict=True)]

    def __len__(self) -> int:
        return len(self._histories[0][0])

    def __getitem__(self, index: int) -> Tensor:
        if len(set(self._weights)) == 1:
            generations = zip(*self._histories, strict=True)
            joined = [Rows.join([cache[index] for cache in caches]) for caches in generations]
            return _weighted(joined, self._weights[0])
        return torch.cat(
            [
                _weighted([cache[index].view() for cache in history], weights)
                for history, weights in zip(self._histories, self._weights, strict=True)
            ]
        )

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def _weighted(generations: Sequence[Tensor], weights: Weights) -> Tensor:
    """The weighted sum of tensors of one shape, newest first; the very tensor if there is only one.

    Interpolating rounds once for each tensor, and small differences of large numbers least: the caches may be
    in bf16.
    """
    *newer, total = generations
    own = None
    for tensor, share in zip(reversed(newer), reversed(shares(weights)), strict=True):
        total = own = torch.lerp(tensor, total, share, out=own)
    return total


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


class Past(NamedTuple):
    """What a full evaluation left, and the step it was at."""

    step: int
    cache: Cache


class Lane:
    """The caches of one lane, from its last full evaluations, and the noise measured at the last.

    history: newest first, at most as many as the run asks for. noise: q in raw output, measured at the last
    full step with the cache of source_step; None if it was not measured.
    """

    def __init__(self) -> None:
        self.signature: Signature | None = None
        self.history: tuple[Past, ...] = ()
        self.noise: Rows | None = None
        self.source_step = -1

    @property
    def step(self) -> int:
        """The full step the newest cache is from; -1 if there is none."""
        return self.history[0].step if self.history else -1

    @property
    def steps(self) -> tuple[int, ...]:
        """The full steps the caches are from, newest first."""
        return tuple(past.step for past in self.history)

    @property
    def caches(self) -> list[Cache]:
        """Newest first."""
        return [past.cache for past in self.history]

    def has_cache(self, signature: Signature) -> bool:
        return bool(self.history) and self.signature == signature

    def refresh(
        self, signature: Signature, cache: Cache, step: int, noise: Rows | None, generations: int = 1
    ) -> None:
        """Takes what a full evaluation at this step gave. generations: how many caches are kept with it."""
        self.source_step = self.step if noise is not None else -1
        fits = self.signature == signature and self.history and _alike(cache, self.history[0].cache)
        earlier = self.history if fits else ()
        # A step that is evaluated anew (a sampler may go back) replaces what it left.
        earlier = tuple(past for past in earlier if past.step < step)
        self.history = (Past(step, cache), *earlier[: generations - 1])
        self.signature, self.noise = signature, noise

    def kept(self) -> list[Kept]:
        """What it keeps; lanes evaluated together share these."""
        rows = [part for past in self.history for part in past.cache]
        return [part.kept for part in (*rows, *([self.noise] if self.noise is not None else []))]


def _alike(cache: Cache, other: Cache) -> bool:
    """Whether two caches can be added tensor by tensor: text may be padded otherwise where other rows are
    evaluated with it."""
    shape, other_shape = ([part.kept.data.shape[1:] for part in each] for each in (cache, other))
    return shape == other_shape
