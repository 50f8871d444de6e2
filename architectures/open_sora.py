"""Open-Sora 1.2 as the host calls it: the transformer and the autoencoder."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import comfy.conds
from torch import Tensor

from .adapter import Adapter, check_text
from .codec import Codec
from .noise import Noise


def shift(height: int, width: int, latent_frames: int) -> float:
    """By how much the original moves the times of its steps towards noise, as ModelSamplingSD3 takes it: the
    square root of the video's size, in pixels and latent frames, over that of one picture of 512 x 512."""
    return math.sqrt(height * width / 512**2 * latent_frames)


def rectified_flow(config: Mapping[str, Any]) -> Noise:
    """Rectified flow; the shift for 51 frames of 480p, the size of the paper."""
    return Noise(prediction="flow", flow_shift=round(shift(480, 854, 15), 2))


class OpenSoraAdapter(Adapter):
    """STDiT3: text by cross-attention, and the frame rate, which LTXVConditioning of the host tells. The
    variance in its output is dropped, and the sign turned: it predicts data - noise."""

    is_video = True

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        frame_rate: float | None = None,
        transformer_options: dict[str, Any] | None = None,
        **_: Any,
    ) -> Tensor:
        """x: (rows, channels, frames, height, width). timesteps: (rows,). context: (rows, tokens, width)."""
        out = self.transformer(
            x, timesteps, context, frame_rate=frame_rate, transformer_options=transformer_options
        )
        return -out[:, : x.shape[1]]

    def conditions(self, latent_scale: float, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Tokens that do not count are left out. Where all are zeros, as ConditioningZeroOut makes them, what
        the model was trained to take for no text stands in their place, as many as there are."""
        tokens, mask = given["cross_attn"], given.get("attention_mask")
        check_text(tokens, self.config.caption_channels)
        if mask is not None:
            tokens = tokens[:, (mask != 0).any(dim=0)]
        if tokens.shape[1] > self.config.model_max_length:
            raise ValueError(
                f"positive, negative: {tokens.shape[1]} text tokens; this model takes up to "
                f"{self.config.model_max_length}. Shorten the prompt."
            )
        if not tokens.any():
            no_text = self.transformer.y_embedder.y_embedding[: tokens.shape[1]]
            tokens = no_text.to(tokens).expand_as(tokens)
        conditions = {"c_crossattn": comfy.conds.CONDCrossAttn(tokens)}
        if given.get("frame_rate") is not None:
            conditions["frame_rate"] = comfy.conds.CONDConstant(float(given["frame_rate"]))
        return conditions


class OpenSoraCodec(Codec):
    """Its convolutions in time work on latents, and its frames come one by one, so what one frame of the
    host's own VAE of this kind takes is enough."""

    NUMBERS_FOR_A_PIXEL: ClassVar[int] = 2178

    def encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def use_tiles(self, height: int | None = None, width: int | None = None) -> None:
        """The library's tiles of pictures are square."""
        frames = self.autoencoder.spatial_vae.module
        side = min(height or frames.config.sample_size, width or frames.config.sample_size)
        frames.tile_latent_min_size = max(side // self.pixels_in_latent, 1)
        frames.tile_sample_min_size = frames.tile_latent_min_size * self.pixels_in_latent
        frames.enable_tiling()

    def use_whole(self) -> None:
        self.autoencoder.spatial_vae.module.disable_tiling()
