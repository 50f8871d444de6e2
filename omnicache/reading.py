"""A few numbers on their way from the device."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """Never makes the host wait for a GPU: has_arrived says when the numbers are there."""

    values: Tensor
    arrival: "torch.cuda.Event | None" = None

    @classmethod
    def of(cls, values: Tensor) -> "Reading":
        if not values.is_cuda:
            return cls(values)
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        here.copy_(values, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()
        return cls(here, arrival)

    @property
    def has_arrived(self) -> bool:
        return self.arrival is None or self.arrival.query()

    def wait(self) -> None:
        if self.arrival is not None:
            self.arrival.synchronize()

    def numbers(self) -> list[float]:
        """To be called when they have arrived."""
        return self.values.tolist()
