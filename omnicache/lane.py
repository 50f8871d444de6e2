"""Lanes: what may share a cache, and what each keeps from step to step."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class LaneKey(NamedTuple):
    """row: the conditioning row and context window, as the host names them. stage: which of the row's
    evaluations within one step, for samplers that need several."""

    row: Hashable
    stage: int


@dataclass(frozen=True)
class Rows:
    """A lane's rows of a tensor that the lanes evaluated together share; nothing is copied until they
    part."""

    tensor: Tensor
    start: int
    count: int

    def view(self) -> Tensor:
        return self.tensor[self.start : self.start + self.count]

    @staticmethod
    def split(tensor: Tensor, parts: int) -> "list[Rows]":
        count = tensor.shape[0] // parts
        return [Rows(tensor, part * count, count) for part in range(parts)]

    @staticmethod
    def join(parts: "Sequence[Rows]") -> Tensor:
        """One tensor with the rows of all parts in order: the shared one itself if they are just that."""
        whole, position = parts[0].tensor, 0
        for part in parts:
            if part.tensor is not whole or part.start != position:
                return torch.cat([part.view() for part in parts])
            position += part.count
        return whole if position == whole.shape[0] else whole[:position]


class Signature(NamedTuple):
    """What must not change for a cache to stay usable: shape of a lane's rows, dtype and device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor, lanes: int) -> "Signature":
        return cls((x.shape[0] // lanes, *x.shape[1:]), x.dtype, x.device)


class Lane:
    """The cache of one lane: the residual of its last full evaluation and the noise measured there.

    step: the full step the residual is from. noise: q in raw output, measured at that step with the cache of
    source_step; None if it was not measured.
    """

    def __init__(self) -> None:
        self.signature: Signature | None = None
        self.residual: Rows | None = None
        self.step = -1
        self.noise: Rows | None = None
        self.source_step = -1

    def has_cache(self, signature: Signature) -> bool:
        return self.residual is not None and self.signature == signature

    def refresh(self, signature: Signature, residual: Rows, step: int, noise: Rows | None) -> None:
        """Takes what a full evaluation at this step gave."""
        self.source_step = self.step if noise is not None else -1
        self.signature, self.residual, self.step, self.noise = signature, residual, step, noise

    def tensors(self) -> list[Tensor]:
        """What it keeps; lanes evaluated together share these."""
        return [rows.tensor for rows in (self.residual, self.noise) if rows is not None]
