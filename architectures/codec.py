"""Stand between the host's call of a VAE and an autoencoder's own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .checkpoint import WithoutWeights

# The library's tiles overlap by a sixth of their height and a fifth of their width: in whole latents.
_TILE_HEIGHT, _TILE_WIDTH = 48, 40


class Codec(nn.Module):
    """An autoencoder for videos, of the diffusers library. Made without weights; see `take`.

    Pixels are (1, 3, frames, height, width) from -1 to 1, latents (1, channels, frames, height, width) as
    they come, before any scale.
    """

    pixels_in_latent: ClassVar[int] = 8  # along a side
    frames_in_latent: ClassVar[int] = 4  # of which the first has one only
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.bfloat16, torch.float32)
    # Numbers held at once for each pixel of a frame. The library takes two frames of latents at a time, and
    # the widest layers of CogVideoX's have 128 channels at full size.
    NUMBERS_FOR_A_PIXEL: ClassVar[int] = 9 * 128 * 6

    def __init__(self, autoencoder_class: type[nn.Module], config: Mapping[str, Any]) -> None:
        super().__init__()
        with WithoutWeights():
            self.autoencoder = autoencoder_class.from_config(dict(config)).eval().requires_grad_(False)

    def take(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Puts in all weights."""
        self.autoencoder.load_state_dict({key: w.to(dtype) for key, w in weights.items()}, assign=True)
        self.requires_grad_(False)

    def encode(self, pixels: Tensor) -> Tensor:
        """The mean of the latents."""
        return self.autoencoder.encode(pixels, return_dict=False)[0].mode()

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents, return_dict=False)[0]

    def use_tiles(self, height: int | None = None, width: int | None = None) -> None:
        """Takes the pictures apart from now on. height, width: of a tile, in pixels; None: half of the size
        it was trained on."""
        self.autoencoder.enable_tiling(_multiple(height, _TILE_HEIGHT), _multiple(width, _TILE_WIDTH))

    def use_whole(self) -> None:
        self.autoencoder.disable_tiling()


def _multiple(size: int | None, unit: int) -> int | None:
    return max(size // unit, 1) * unit if size is not None else None
