"""Open-Sora 1.2's autoencoder: each frame through the one of SDXL, then causal convolutions in time.

Written anew from its description and the published configuration; parameters have the published checkpoint's
names and shapes (hpcai-tech/OpenSora-VAE-v1.2). The spatial part is the diffusers library's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad, silu

SPATIAL_SCALE = 0.18215  # the original takes Stable Diffusion's, though the frames' autoencoder is SDXL's

SDXL = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "sample_size": 512,
}


@dataclass(frozen=True)
class OpenSoraVAEConfig:
    """shift, scale: mean and size of each latent channel. micro_frame_size: frames that are taken at once.
    spatial: of the frames' autoencoder. width, depth, groups: channels of the convolutions in time at the
    outside, blocks at each level, groups of their norms."""

    shift: tuple[float, ...] = (-0.10, 0.34, 0.27, 0.98)
    scale: tuple[float, ...] = (3.85, 2.32, 2.33, 3.06)
    micro_frame_size: int = 17
    spatial: Mapping[str, Any] = field(default_factory=lambda: SDXL)
    width: int = 128
    depth: int = 4
    groups: int = 32


LEVELS = (1, 2, 2, 4)  # widths, from the outside to the inside
HALVES = (False, True, True)  # whether time is halved behind each level but the last
FRAMES = 4  # to one of the latent


class OpenSoraVAE(nn.Module):
    """Pixels are (B, 3, T, H, W) from -1 to 1, latents (B, 4, t, h, w) as STDiT3 takes them."""

    def __init__(self, config: OpenSoraVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or OpenSoraVAEConfig()
        self.spatial_vae = _FrameVAE(config.spatial)
        self.temporal_vae = _TemporalVAE(config)
        for name in ("shift", "scale"):  # also in the checkpoint, but config.json tells them too
            numbers = torch.tensor(getattr(config, name))
            self.register_buffer(name, rearrange(numbers, "c -> c 1 1 1"), persistent=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "OpenSoraVAE":
        """config: config.json."""
        given = {name: config[name] for name in ("shift", "scale", "micro_frame_size") if name in config}
        return cls(OpenSoraVAEConfig(**given))

    def encode(self, pixels: Tensor) -> Tensor:
        """The mean of the latents."""
        z = torch.cat([self.spatial_vae.encode(frame) for frame in pixels.split(1, dim=2)], dim=2)
        pieces = z.split(self.config.micro_frame_size, dim=2)
        z = torch.cat([self.temporal_vae.encode(piece) for piece in pieces], dim=2)
        return (z - self.shift.to(z)) / self.scale.to(z)

    def decode(self, latents: Tensor) -> Tensor:
        """Each piece of n latent frames gives 4 n - 3 frames: 17 for 5, and 1 for 1."""
        z = latents * self.scale.to(latents) + self.shift.to(latents)
        pieces = z.split(-(-self.config.micro_frame_size // FRAMES), dim=2)
        z = torch.cat([self.temporal_vae.decode(piece) for piece in pieces], dim=2)
        return torch.cat([self.spatial_vae.decode(frame) for frame in z.split(1, dim=2)], dim=2)


class _FrameVAE(nn.Module):
    """Takes one frame at a time, (B, C, 1, H, W)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        self.module = AutoencoderKL(**config)

    def encode(self, frame: Tensor) -> Tensor:
        return SPATIAL_SCALE * self.module.encode(frame[:, :, 0]).latent_dist.mode()[:, :, None]

    def decode(self, frame: Tensor) -> Tensor:
        return self.module.decode(frame[:, :, 0] / SPATIAL_SCALE).sample[:, :, None]


class _TemporalVAE(nn.Module):
    def __init__(self, config: OpenSoraVAEConfig) -> None:
        super().__init__()
        channels = len(config.shift)
        self.encoder = _Encoder(config, channels)
        self.quant_conv = _CausalConv(2 * channels, 2 * channels, 1)
        self.post_quant_conv = _CausalConv(channels, channels, 1)
        self.decoder = _Decoder(config, channels)

    def encode(self, z: Tensor) -> Tensor:
        """What is missing to whole latent frames is zeros in front."""
        z = pad(z, (0, 0, 0, 0, -z.shape[2] % FRAMES, 0))
        return self.quant_conv(self.encoder(z)).chunk(2, dim=1)[0]  # behind the mean is the variance

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))[:, :, FRAMES - 1 :]


class _Encoder(nn.Module):
    def __init__(self, config: OpenSoraVAEConfig, channels: int) -> None:
        super().__init__()
        widths = [config.width * level for level in LEVELS]
        self.conv_in = _CausalConv(channels, config.width, 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(before, width, config)
            for before, width in zip([config.width, *widths[:-1]], widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            _CausalConv(width, width, 3, stride=2) if is_halved else nn.Identity()
            for width, is_halved in zip(widths, HALVES, strict=False)
        )
        self.res_blocks = _res_blocks(widths[-1], widths[-1], config)
        self.norm1 = nn.GroupNorm(config.groups, widths[-1])
        self.conv2 = _CausalConv(widths[-1], 2 * channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        z = self.conv_in(z)
        for level, blocks in enumerate(self.block_res_blocks):
            z = _through(blocks, z)
            if level < len(self.conv_blocks):
                z = self.conv_blocks[level](z)
        return self.conv2(silu(self.norm1(_through(self.res_blocks, z))))


class _Decoder(nn.Module):
    def __init__(self, config: OpenSoraVAEConfig, channels: int) -> None:
        super().__init__()
        widths = [config.width * level for level in LEVELS]
        self.conv1 = _CausalConv(channels, widths[-1], 3)
        self.res_blocks = _res_blocks(widths[-1], widths[-1], config)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(before, width, config)
            for before, width in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            _CausalConv(width, 2 * width, 3) if is_halved else nn.Identity()
            for width, is_halved in zip(widths[1:], HALVES, strict=True)
        )
        self.norm1 = nn.GroupNorm(config.groups, config.width)
        self.conv_out = _CausalConv(config.width, channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        z = _through(self.res_blocks, self.conv1(z))
        for level in reversed(range(len(LEVELS))):
            z = _through(self.block_res_blocks[level], z)
            if level:
                z = self.conv_blocks[level - 1](z)
                if HALVES[level - 1]:
                    z = rearrange(z, "b (c two) t h w -> b c (t two) h w", two=2)
        return self.conv_out(silu(self.norm1(z)))


class _ResBlock(nn.Module):
    def __init__(self, channels: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, width)
        self.conv1 = _CausalConv(channels, width, 3, bias=False)
        self.conv2 = _CausalConv(width, width, 3, bias=False)
        if channels != width:
            self.conv3 = _CausalConv(channels, width, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        added = self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(z))))))
        return added + (self.conv3(z) if hasattr(self, "conv3") else z)


class _CausalConv(nn.Module):
    """Sees nothing of the frames to come: in time, all zeros that fill the edges are in front. stride: in
    time."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        side = kernel // 2
        self.edges = (side, side, side, side, kernel - stride, 0)
        self.conv = nn.Conv3d(channels, width, kernel, stride=(stride, 1, 1), bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(pad(z, self.edges))


def _res_blocks(channels: int, width: int, config: OpenSoraVAEConfig) -> nn.ModuleList:
    return nn.ModuleList(
        _ResBlock(width if number else channels, width, config.groups) for number in range(config.depth)
    )


def _through(blocks: Sequence[nn.Module], z: Tensor) -> Tensor:
    for block in blocks:
        z = block(z)
    return z
