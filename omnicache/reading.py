"""Numbers on their way from the device."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Readings:
    """A few numbers at a time, read in the order in which they were sent. Only `wait` makes the host wait
    for a GPU."""

    def __init__(self) -> None:
        self._on_their_way: deque[tuple[Any, Tensor, torch.cuda.Event | None]] = deque()

    def send(self, values: Tensor, about: Any = None) -> None:
        """about: handed on with the numbers."""
        arrival = None
        if values.is_cuda:
            here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = here.copy_(values, non_blocking=True)
            arrival = torch.cuda.Event()
            arrival.record()
        self._on_their_way.append((about, values, arrival))

    def arrived(self) -> Iterator[tuple[Any, list[float]]]:
        """What the numbers that are there are about, and the numbers; each is given once."""
        while self._on_their_way:
            about, values, arrival = self._on_their_way[0]
            if arrival is not None and not arrival.query():
                return
            self._on_their_way.popleft()
            yield about, values.tolist()

    def wait(self) -> None:
        """Until all are there."""
        for _, _, arrival in self._on_their_way:
            if arrival is not None:
                arrival.synchronize()

    def clear(self) -> None:
        self._on_their_way.clear()


def energies(*tensors: Tensor) -> Tensor:
    """(tensors,) the sum of the squares of each, in float32."""
    return torch.stack([tensor.float().square().sum() for tensor in tensors])
