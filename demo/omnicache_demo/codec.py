"""A linear autoencoder: 4 x 4 pixels of RGB to 16 latent channels and back, by principal components."""

from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

PATH = Path(__file__).resolve().parent.parent / "models" / "omnicache_demo_codec.safetensors"
PIXELS = 4  # a latent pixel is so many pixels wide and high
CHANNELS = 16


class Codec:
    """mean: (48,). encoder: (48, 16). decoder: (16, 48)."""

    def __init__(self, mean: Tensor, encoder: Tensor, decoder: Tensor) -> None:
        self.mean, self.encoder, self.decoder = mean, encoder, decoder

    @classmethod
    def fit(cls, pictures: Tensor) -> "Codec":
        """pictures: (count, height, width, 3) in -1..1. The channels get the square root of their natural
        spread: enough that details are learnt, not so much that they drown what matters."""
        cells = _cells(pictures).reshape(-1, 3 * PIXELS**2).double()
        mean = cells.mean(0)
        values, vectors = torch.linalg.eigh((cells - mean).T @ (cells - mean) / len(cells))
        spread, basis = values.flip(0)[:CHANNELS].sqrt(), vectors.flip(1)[:, :CHANNELS]
        scale = 1.0 / (spread.sqrt() * (spread.mean().sqrt()))
        return cls(mean.float(), (basis * scale).float(), (basis / scale).T.contiguous().float())

    @classmethod
    def load(cls, path: Path = PATH) -> "Codec":
        return cls(**load_file(path))

    def save(self, path: Path = PATH) -> None:
        save_file({"mean": self.mean, "encoder": self.encoder.contiguous(), "decoder": self.decoder}, path)

    def encode(self, pictures: Tensor) -> Tensor:
        """(..., height, width, 3) in -1..1 to (..., 16, height / 4, width / 4)."""
        return ((_cells(pictures) - self.mean) @ self.encoder).movedim(-1, -3)

    def decode(self, latents: Tensor) -> Tensor:
        """(..., 16, h, w) to (..., 4 h, 4 w, 3) in -1..1."""
        cells = latents.movedim(-3, -1) @ self.decoder + self.mean
        pictures = rearrange(cells, "... h w (p q c) -> ... (h p) (w q) c", p=PIXELS, q=PIXELS)
        return pictures.clamp(-1.0, 1.0)


def _cells(pictures: Tensor) -> Tensor:
    return rearrange(pictures, "... (h p) (w q) c -> ... h w (p q c)", p=PIXELS, q=PIXELS)
