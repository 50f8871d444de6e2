"""Stand between the host's call of a model and a transformer's own forward."""

from collections.abc import Mapping
from typing import Any, ClassVar

import comfy.conds
import torch
from torch import Tensor, nn

from .checkpoint import WithoutWeights

# Layers that the host knows how to keep in main memory or in another number format until they are needed.
_HOST_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm)


class Adapter(nn.Module):
    """A transformer as the host's BaseModel calls it. Made without weights; see `take`."""

    # Whether latents have frames: (rows, channels, frames, height, width).
    is_video: ClassVar[bool] = False

    def __init__(
        self,
        transformer_class: type[nn.Module],
        config: Mapping[str, Any],
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: type | None = None,
    ) -> None:
        """transformer_class: has a from_config that takes its config.json. dtype: of the weights. device: of
        no account, the weights bring their own. operations: the host's layers."""
        super().__init__()
        self.dtype = dtype or torch.float32
        with WithoutWeights():
            self.transformer = transformer_class.from_config(dict(config)).eval().requires_grad_(False)
        self.config = self.transformer.config
        for module in self.transformer.modules():
            if type(module) in _HOST_LAYERS and operations is not None:
                module.__class__ = getattr(operations, type(module).__name__)

    @property
    def latent_channels(self) -> int:
        return self.config.in_channels

    def take(self, weights: Mapping[str, Tensor], compute_dtype: torch.dtype) -> None:
        """Puts in all weights. Those of layers that the host cannot cast are kept as they are computed
        with."""
        castable = {
            f"{name}.{own}"
            for name, module in self.transformer.named_modules()
            if hasattr(module, "comfy_cast_weights")
            for own, _ in module.named_parameters(recurse=False)
        }
        self.transformer.load_state_dict(
            {key: w.to(self.dtype if key in castable else compute_dtype) for key, w in weights.items()},
            assign=True,
        )
        self.requires_grad_(False)

    def conditions(self, latent_scale: float, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        """What the forward needs of a conditioning, beside what the host hands on by itself. given: the
        conditioning's entries, and noise (rows, channels, ...) in the latent's shape. latent_scale: what the
        VAE's latents are multiplied by. Raises ValueError for what does not fit."""
        return {}

    def check_latent(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError for a latent (rows, channels, ...) that the transformer cannot take."""


class DiTAdapter(Adapter):
    """DiTTransformer2DModel: a class label. The other half of its output channels, the learned variance, is
    dropped, as in diffusers' own DiTPipeline: no sampler of the host takes it."""

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor, **_: Any) -> Tensor:
        """x: (rows, channels, height, width). timesteps: (rows,). y: (rows, 1) labels."""
        out = self.transformer(x, timestep=timesteps, class_labels=y.flatten(), return_dict=False)[0]
        return out[:, : x.shape[1]]

    def conditions(self, latent_scale: float, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        label, classes = given.get("class_label"), self.config.num_embeds_ada_norm
        if label is None:
            raise ValueError(
                "positive, negative: this model takes class labels. Connect an OmniCache Class Label node to "
                "each."
            )
        labels = torch.as_tensor(label).reshape(-1, 1)  # one for all rows, or one for each
        if labels.max() >= classes:
            raise ValueError(f"class label: {labels.max()}; this model has the classes 0 to {classes - 1}.")
        # The embedding behind the last class stands for none.
        return {"y": comfy.conds.CONDRegular(torch.where(labels >= 0, labels, classes))}

    def check_latent(self, shape: tuple[int, ...]) -> None:
        height, width = shape[-2:]
        if height != width or height % self.config.patch_size:
            raise ValueError(
                f"latent_image: {width} x {height} in latent pixels; this model makes square pictures only, "
                f"a multiple of {self.config.patch_size} latent pixels wide. It was trained for "
                f"{self.config.sample_size}."
            )


class CogVideoXAdapter(Adapter):
    """CogVideoXTransformer3DModel: text tokens in one stream with the video's, positions by rotation or by
    sum, and for image-to-video the latents of the image as further channels. As diffusers' CogVideoXPipeline
    and CogVideoXImageToVideoPipeline call it."""

    is_video = True
    OFS = 2.0  # what image-to-video of 1.5 was trained with, always

    @property
    def latent_channels(self) -> int:
        return self.config.out_channels

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        """x: (rows, channels, frames, height, width), with the image's channels behind the latent's.
        timesteps: (rows,). context: (rows, tokens, width)."""
        _, _, frames, height, width = x.shape
        config = self.config
        out = self.transformer(
            x.movedim(2, 1),  # the library has frames before channels
            encoder_hidden_states=context,
            timestep=timesteps,
            ofs=x.new_full((1,), self.OFS) if config.ofs_embed_dim else None,
            image_rotary_emb=self._rotation(frames, height, width, x.device)
            if config.use_rotary_positional_embeddings
            else None,
            return_dict=False,
        )[0]
        return out.movedim(1, 2)

    def conditions(self, latent_scale: float, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        conditions = {"c_crossattn": comfy.conds.CONDRegular(self._padded(given["cross_attn"]))}
        if self.config.in_channels > self.latent_channels:
            # With 1.5 the image was divided by the scale, by mistake but from the first day.
            scale = latent_scale if self.config.patch_size_t is None else 1 / latent_scale
            image = self._image(given.get("concat_latent_image"), given["noise"])
            conditions["c_concat"] = comfy.conds.CONDNoiseShape(image * scale)
        return conditions

    def check_latent(self, shape: tuple[int, ...]) -> None:
        config, (frames, height, width) = self.config, shape[2:]
        patch, frames_in_patch = config.patch_size, config.patch_size_t or 1
        if height % patch or width % patch:
            raise _not_in_patches(width, height, patch)
        if frames % frames_in_patch:
            raise ValueError(
                f"latent_image: {frames} frames in latents; this model takes multiples of {frames_in_patch}. "
                f"Set length to {4 * frames + 1}, and drop the first pictures of the video that it adds."
            )
        fixed = config.sample_width, config.sample_height
        if config.use_learned_positional_embeddings and (width, height) != fixed:
            raise ValueError(
                f"latent_image: {width} x {height} in latent pixels; this model has learned positions for "
                f"{fixed[0]} x {fixed[1]} only. Make it {8 * fixed[0]} x {8 * fixed[1]} pixels."
            )

    def _padded(self, tokens: Tensor) -> Tensor:
        """(rows, tokens, width) with as many tokens as it was trained on, zeros behind the text. The host
        would repeat the text instead, and tokens in one stream with the video's all count."""
        check_text(tokens, self.config.text_embed_dim)
        longest = self.config.max_text_seq_length
        if tokens.shape[1] > longest:
            raise ValueError(
                f"positive, negative: {tokens.shape[1]} text tokens; this model takes {longest}. Shorten the "
                f"prompt, or set min_length of T5TokenizerOptions to {longest}."
            )
        return nn.functional.pad(tokens, (0, 0, 0, longest - tokens.shape[1]))

    def _image(self, latents: Tensor | None, noise: Tensor) -> Tensor:
        """(rows, channels, frames, height, width) of the image, which stands for the first frame."""
        if latents is None:
            raise ValueError(
                "positive, negative: this model makes videos from an image. Put an OmniCache Image To Video "
                "node before the sampler, for both."
            )
        if latents.shape[3:] != noise.shape[3:] or latents.shape[2] > noise.shape[2]:
            raise ValueError(
                f"latent_image: {tuple(noise.shape[2:])} (frames, height, width); the image's latents are "
                f"{tuple(latents.shape[2:])}. Take the latent that OmniCache Image To Video gives."
            )
        return nn.functional.pad(latents, (0, 0, 0, 0, 0, noise.shape[2] - latents.shape[2]))

    def _rotation(self, frames: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines (positions, width of a head): of 1.0 on the grid that it was trained on, cut to
        these proportions; of 1.5 from its corner."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        config, patch = self.config, self.config.patch_size
        trained = config.sample_height // patch, config.sample_width // patch
        grid = height // patch, width // patch
        if config.patch_size_t is None:
            where = {"crops_coords": _cut(trained, grid), "temporal_size": frames}
        else:
            where = {
                "crops_coords": None,
                "temporal_size": frames // config.patch_size_t,
                "grid_type": "slice",
                "max_size": trained,
            }
        return get_3d_rotary_pos_embed(config.attention_head_dim, grid_size=grid, device=device, **where)


class LatteAdapter(Adapter):
    """LatteTransformer3DModel: blocks of attention within each frame and between the frames in turn, text by
    cross-attention. As diffusers' LattePipeline calls it; the learned variance is dropped there too."""

    is_video = True

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        """x: (rows, channels, frames, height, width). timesteps: (rows,). context: (rows, tokens, width)."""
        out = self.transformer(x, timestep=timesteps, encoder_hidden_states=context, return_dict=False)[0]
        return out[:, : x.shape[1]]

    def conditions(self, latent_scale: float, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        # The host hands on the tokens by itself.
        check_text(given["cross_attn"], self.config.caption_channels)
        return {}

    def check_latent(self, shape: tuple[int, ...]) -> None:
        config, (frames, height, width) = self.config, shape[2:]
        if height % config.patch_size or width % config.patch_size:
            raise _not_in_patches(width, height, config.patch_size)
        if frames not in (1, config.video_length):
            raise ValueError(
                f"latent_image: {frames} frames in latents; this model makes {config.video_length}, or 1. "
                f"Set length of EmptyHunyuanLatentVideo to {4 * config.video_length - 3} for that."
            )


def check_text(tokens: Tensor, width: int) -> None:
    """Raises ValueError for tokens (rows, tokens, width) of another text encoder."""
    if tokens.shape[-1] != width:
        raise ValueError(
            f"positive, negative: text tokens of width {tokens.shape[-1]}; this model takes {width}, those "
            "of T5-XXL. Load t5xxl with CLIPLoader and its type pixart."
        )


def _not_in_patches(width: int, height: int, patch: int) -> ValueError:
    return ValueError(
        f"latent_image: {width} x {height} in latent pixels; this model takes multiples of {patch}, pictures "
        f"whose sides are multiples of {8 * patch}."
    )


def _cut(whole: tuple[int, int], grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top left and bottom right of the largest part of these proportions in the middle of the whole, (height,
    width) each. As in diffusers' get_resize_crop_region_for_grid."""
    if grid[0] / grid[1] > whole[0] / whole[1]:
        size = whole[0], int(round(whole[0] / grid[0] * grid[1]))
    else:
        size = int(round(whole[1] / grid[1] * grid[0])), whole[1]
    top, left = (int(round((whole[axis] - size[axis]) / 2.0)) for axis in (0, 1))
    return (top, left), (top + size[0], left + size[1])
