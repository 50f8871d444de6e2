"""Makes a VAE of the host out of a video autoencoder in the diffusers layout."""

from collections.abc import Callable

import comfy.model_management as management
import comfy.model_patcher
import torch
from torch import Tensor

from .checkpoint import CONFIG, Kind, class_name_of, fitting, folder_of, names, read_json, read_weights
from .codec import Codec
from .table import AUTOENCODERS, autoencoder_of

VIDEO_AUTOENCODERS = Kind(
    ("vae", "diffusers", "diffusion_models"),
    "vae",
    lambda name: name in {row.class_name for row in AUTOENCODERS},
)


class VideoVAE:
    """What the host's VAE nodes call: a comfy.sd.VAE cannot be made around a foreign autoencoder, for it
    detects its own from the weights. Videos are decoded one by one, and in tiles if memory is short."""

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        self.codec, self.dtype = codec, dtype
        self.device, self.output_device = management.vae_device(), management.intermediate_device()
        offload_device = management.vae_offload_device()
        codec.to(offload_device)
        self.patcher = comfy.model_patcher.ModelPatcher(codec, self.device, offload_device)

    def decode(self, samples: Tensor) -> Tensor:
        """(rows, channels, frames, height, width) latents to (rows, frames, height, width, 3) from 0 to 1."""
        if samples.ndim != 5:
            raise ValueError(
                f"samples: {tuple(samples.shape)}; this VAE takes videos, (rows, channels, frames, height, "
                "width). Connect the latent of a video model."
            )
        pixels = self._each(samples, self.codec.decode, self.codec.pixels_in_latent**2)
        return ((pixels + 1) / 2).clamp(0, 1).movedim(1, -1)

    def encode(self, pixels: Tensor) -> Tensor:
        """(frames, height, width, 3) of one video, from 0 to 1, to (1, channels, frames, height, width)."""
        unit = self.codec.pixels_in_latent
        height, width = (size // unit * unit for size in pixels.shape[1:3])
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        video = pixels[:, top : top + height, left : left + width, :3].movedim(-1, 0)[None]
        return self._each(video * 2 - 1, self.codec.encode, 1)

    def get_sd(self) -> dict[str, Tensor]:
        """What VAESave writes: the weights by the names that they were loaded by."""
        return self.codec.autoencoder.state_dict()

    def decode_tiled(
        self, samples: Tensor, tile_x: int | None = None, tile_y: int | None = None, **_: int | None
    ) -> Tensor:
        """tile_x, tile_y: in latent pixels. The overlap is the autoencoder's own."""
        unit = self.codec.pixels_in_latent
        self.codec.use_tiles(*(unit * size if size else None for size in (tile_y, tile_x)))
        try:
            return self.decode(samples)
        finally:
            self.codec.use_whole()

    def encode_tiled(
        self, pixels: Tensor, tile_x: int | None = None, tile_y: int | None = None, **_: int | None
    ) -> Tensor:
        """tile_x, tile_y: in pixels."""
        self.codec.use_tiles(tile_y, tile_x)
        try:
            return self.encode(pixels)
        finally:
            self.codec.use_whole()

    def spacial_compression_decode(self) -> int:
        return self.codec.pixels_in_latent

    def spacial_compression_encode(self) -> int:
        return self.codec.pixels_in_latent

    def temporal_compression_decode(self) -> int:
        return self.codec.frames_in_latent

    def _each(self, rows: Tensor, work: Callable[[Tensor], Tensor], pixels: int) -> Tensor:
        """pixels: of the picture for each of the input's."""
        size = rows.shape[-2] * rows.shape[-1] * pixels
        needed = size * self.codec.NUMBERS_FOR_A_PIXEL * management.dtype_size(self.dtype)
        management.load_models_gpu([self.patcher], memory_required=needed)

        def done() -> Tensor:
            parts = [work(row.to(self.device, self.dtype)).to(self.output_device) for row in rows.split(1)]
            return torch.cat(parts).float()

        with torch.inference_mode():
            try:
                return done()
            except management.OOM_EXCEPTION:
                pass  # what it left is freed once its traceback is
            management.soft_empty_cache()
            self.codec.use_tiles()
            try:
                return done()
            finally:
                self.codec.use_whole()


def menu() -> list[str]:
    return names(VIDEO_AUTOENCODERS)


def load(name: str) -> VideoVAE:
    """An autoencoder by its name in the menu. Raises ValueError that names what is wrong, and the file."""
    folder = folder_of(name, VIDEO_AUTOENCODERS)
    config = read_json(folder / CONFIG)
    row = autoencoder_of(class_name_of(config), str(folder / CONFIG))
    codec = row.codec(row.autoencoder_class(), config)
    dtype = management.vae_dtype(management.vae_device(), list(codec.dtypes))
    codec.take(fitting(read_weights(folder), codec.autoencoder), dtype)
    return VideoVAE(codec, dtype)
