"""How cached tensors are kept between steps: in which number format and on which device."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CacheDtype = Literal["compute", "bf16", "fp8"]
CacheDevice = Literal["model", "cpu"]

_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = torch.finfo(_FP8).max
_DEVICES_WITH_FP8 = ("cpu", "cuda")


@dataclass(frozen=True)
class Kept:
    """A tensor as it is stored. scale: (..., 1) what the stored numbers are multiplied by, of fp8 only."""

    data: Tensor
    dtype: torch.dtype
    device: torch.device
    scale: Tensor | None = None

    @classmethod
    def as_is(cls, tensor: Tensor) -> "Kept":
        return cls(tensor, tensor.dtype, tensor.device)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (self.scale.nbytes if self.scale is not None else 0)

    @property
    def rows(self) -> int:
        return self.data.shape[0]

    def whole(self) -> Tensor:
        """The tensor as it came; the very same one if nothing had to be changed to store it."""
        # The copy is queued behind the one that filled the pinned memory, so nobody waits for either.
        data = self.data.to(self.device, non_blocking=True)
        if self.scale is None:
            return data.to(self.dtype)
        return data.to(self.dtype).mul_(self.scale.to(self.device, non_blocking=True))


@dataclass(frozen=True)
class Storage:
    """dtype "compute" keeps what the model computed. "fp8" (e4m3) keeps one scale for each token. device
    "cpu" moves it to main memory, pinned where there is a GPU, without waiting for the copy."""

    dtype: CacheDtype = "compute"
    device: CacheDevice = "model"

    def keep(self, tensor: Tensor) -> Kept:
        """Stores (rows, ...) a tensor that nobody will write into."""
        return self._kept(tensor, self._dtype_for(tensor))

    def keep_change(self, tensor: Tensor) -> Kept:
        """Stores the difference of two such tensors in half of their width. It is small beside them, and so
        is what rounding adds to a forecast."""
        if self._dtype_for(tensor) == torch.float32:
            return self._kept(tensor, torch.bfloat16)
        return self._kept(tensor, _FP8 if tensor.device.type in _DEVICES_WITH_FP8 else tensor.dtype)

    @property
    def share_of_change(self) -> float:
        """What a change takes beside a cache."""
        return 1.0 if self.dtype == "fp8" else 0.5

    def _dtype_for(self, tensor: Tensor) -> torch.dtype:
        return {"compute": tensor.dtype, "bf16": torch.bfloat16, "fp8": _FP8}[self.dtype]

    def _kept(self, tensor: Tensor, dtype: torch.dtype) -> Kept:
        data, scale = tensor, None
        if dtype != _FP8:
            data = tensor.to(dtype)
        else:
            largest = tensor.abs().amax(dim=-1, keepdim=True).float()
            # A token of zeros would divide by zero; any scale serves it.
            scale = (largest / _FP8_LARGEST).clamp_min_(torch.finfo(torch.float32).tiny)
            data = (tensor / scale).to(_FP8)
        if self.device == "cpu":
            data = _to_main_memory(data)
            scale = _to_main_memory(scale) if scale is not None else None
        return Kept(data, tensor.dtype, tensor.device, scale)


def _to_main_memory(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor
    # torch keeps freed pinned memory for the next request, so this allocates in the first steps only.
    there = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
    return there.copy_(tensor, non_blocking=tensor.is_cuda)
