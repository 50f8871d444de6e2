"""Open-Sora 1.2's transformer (STDiT3): spatial and temporal blocks in turn, over the tokens of a video.

Written anew from its description (Open-Sora report 1.2, arXiv 2412.20404) and the published configuration;
parameters have the published checkpoint's names and shapes (hpcai-tech/OpenSora-STDiT-v3). Left out: frames
that are given rather than generated (x_mask), training, and running on several devices.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

FREQUENCIES = 256  # of the sinusoids that time and frame rate are turned into
FRAME_RATE, FRAME_RATE_OF_IMAGES = 24.0, 120.0  # what the original tells the model, if nothing else
PIXELS = 8  # of the video to one of the latent, along height and width


@dataclass(frozen=True)
class STDiT3Config:
    """The published config.json, as far as it describes the model. input_sq_size: side in pixels of the
    square at which positions count patches one by one."""

    in_channels: int = 4
    patch_size: tuple[int, int, int] = (1, 2, 2)
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    caption_channels: int = 4096
    model_max_length: int = 300
    input_sq_size: int = 512
    qk_norm: bool = True
    pred_sigma: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "STDiT3Config":
        """config: config.json. What else is in it is for training or for the original's own kernels."""
        if config.get("skip_y_embedder"):
            raise ValueError(
                "config.json: skip_y_embedder is true, so this checkpoint takes text that is already "
                "embedded. Use the published OpenSora-STDiT-v3."
            )
        known = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        if "patch_size" in known:
            known["patch_size"] = tuple(known["patch_size"])
        return cls(**known)

    # As the configurations of the diffusers library name them.
    @property
    def num_attention_heads(self) -> int:
        return self.num_heads

    @property
    def attention_head_dim(self) -> int:
        return self.hidden_size // self.num_heads


class STDiT3(nn.Module):
    """Predicts data - noise, and behind it a variance that nobody uses."""

    def __init__(self, config: STDiT3Config | None = None) -> None:
        super().__init__()
        self.config = config = config or STDiT3Config()
        width = config.hidden_size
        self.x_embedder = _PatchEmbedder(config)
        self.t_embedder = _ScalarEmbedder(width)
        self.fps_embedder = _ScalarEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = _TextEmbedder(config)
        self.rope = _Rotary(config.attention_head_dim)
        self.spatial_blocks = nn.ModuleList(STDiT3Block(config, False) for _ in range(config.depth))
        self.temporal_blocks = nn.ModuleList(STDiT3Block(config, True) for _ in range(config.depth))
        self.final_layer = _FinalLayer(config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "STDiT3":
        """config: config.json. Weights are whatever memory holds until a checkpoint is loaded."""
        return cls(STDiT3Config.of(config))

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        attention_mask: Tensor | None = None,
        frame_rate: float | None = None,
        height: float | None = None,
        width: float | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """x: (B, C, T, H, W). timestep: (B,), 1000 for noise to 0. context: (B, L, caption_channels), text.
        attention_mask: (B, L), not 0 where a token counts. frame_rate: frames in a second. height, width: of
        the video in pixels. transformer_options: handed on to the blocks. Returns (B, 2C, T, H, W).
        """
        latent_size = x.shape[2:]
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None]  # (B, 1, 1, L)
        if frame_rate is None:
            frame_rate = FRAME_RATE if latent_size[0] > 1 else FRAME_RATE_OF_IMAGES
        height, width = height or PIXELS * latent_size[1], width or PIXELS * latent_size[2]

        rate = torch.full_like(timestep, frame_rate)
        time = self.t_embedder(timestep, x.dtype) + self.fps_embedder(rate, x.dtype)  # (B, D)
        modulation = rearrange(self.t_block(time), "b (six d) -> six b 1 d", six=6)
        text = self.y_embedder(context)  # (B, L, D)

        patches = self.x_embedder(x)  # (B, D, t, h, w)
        frames, rows, columns = patches.shape[2:]
        scale = math.sqrt(height * width) / self.config.input_sq_size
        places = _positions(patches, scale)  # (h w, D)
        hidden = rearrange(rearrange(patches, "b d t h w -> b t (h w) d") + places, "b t s d -> b (t s) d")

        turns = self.rope(frames, x.device)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block in (spatial, temporal):
                hidden = block(
                    hidden, text=text, mask=mask, modulation=modulation, frames=frames, turns=turns,
                    transformer_options=transformer_options,
                )  # fmt: skip

        out = rearrange(
            self.final_layer(hidden, time),
            "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)",
            t=frames,
            h=rows,
            **dict(zip(("pt", "ph", "pw"), self.config.patch_size, strict=True)),
        )
        return out[:, :, : latent_size[0], : latent_size[1], : latent_size[2]]


class STDiT3Block(nn.Module):
    """Attention within each frame, or along time at each place; then to the text, and an MLP."""

    def __init__(self, config: STDiT3Config, is_temporal: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attn = _Attention(config, is_temporal)
        self.cross_attn = _CrossAttention(config)
        self.mlp = _MLP(width, int(width * config.mlp_ratio), width)
        self.scale_shift_table = nn.Parameter(torch.empty(6, width))

    def forward(
        self,
        hidden: Tensor,
        *,
        text: Tensor,
        mask: Tensor | None,
        modulation: Tensor,
        frames: int,
        turns: tuple[Tensor, Tensor],
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """hidden: (B, T S, D). text: (B, L, D). mask: (B, 1, 1, L), true where a token counts. modulation:
        (6, B, 1, D). turns: see _Rotary. transformer_options: for callbacks that stand around the block."""
        table = self.scale_shift_table.to(hidden)[:, None, None]
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table + modulation
        hidden = hidden + gate * self.attn(_modulated(self.norm1(hidden), shift, scale), frames, turns)
        hidden = hidden + self.cross_attn(hidden, text, mask)
        return hidden + gate_mlp * self.mlp(_modulated(self.norm2(hidden), shift_mlp, scale_mlp))


class _Attention(nn.Module):
    """Within each frame, or along time at each place. Rows come first in what it takes and gives."""

    def __init__(self, config: STDiT3Config, is_temporal: bool) -> None:
        super().__init__()
        self.is_temporal = is_temporal
        width, self.heads = config.hidden_size, config.num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (
            nn.RMSNorm(config.attention_head_dim, eps=1e-6) if config.qk_norm else nn.Identity()
            for _ in range(2)
        )

    def forward(self, tokens: Tensor, frames: int, turns: tuple[Tensor, Tensor]) -> Tensor:
        """tokens: (B, T S, D). turns: see _Rotary; of attention along time."""
        apart = "three (b s) h t d" if self.is_temporal else "three (b t) h s d"
        q, k, v = rearrange(
            self.qkv(tokens), f"b (t s) (three h d) -> {apart}", t=frames, three=3, h=self.heads
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if self.is_temporal:
            q, k = _turned(q, turns), _turned(k, turns)
        attended = scaled_dot_product_attention(q, k, v)
        apart = apart.removeprefix("three ")
        return self.proj(rearrange(attended, f"{apart} -> b (t s) (h d)", t=frames, b=len(tokens)))


class _CrossAttention(nn.Module):
    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.q_linear, self.kv_linear = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        q = rearrange(self.q_linear(tokens), "b l (h d) -> b h l d", h=self.heads)
        k, v = rearrange(self.kv_linear(text), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(attended, "b h l d -> b l (h d)"))


class _MLP(nn.Module):
    def __init__(self, wide_in: int, wide: int, wide_out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(wide_in, wide), nn.Linear(wide, wide_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


class _PatchEmbedder(nn.Module):
    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, self.patch, stride=self.patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, D, t, h, w); what does not fill a patch is filled with zeros."""
        missing = [-size % patch for size, patch in zip(x.shape[2:], self.patch, strict=True)]
        return self.proj(pad(x, (0, missing[2], 0, missing[1], 0, missing[0])))


class _ScalarEmbedder(nn.Module):
    """A number for each row, as sinusoids through a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, number: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) -> (B, D)."""
        half = FREQUENCIES // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=number.device) / half)
        angles = number.float()[:, None] * frequencies
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=1).to(dtype))


class _TextEmbedder(nn.Module):
    """y_embedding: what the model was trained to take for the tokens of no text."""

    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        self.y_proj = _MLP(config.caption_channels, config.hidden_size, config.hidden_size)
        self.register_buffer("y_embedding", torch.empty(config.model_max_length, config.caption_channels))

    def forward(self, text: Tensor) -> Tensor:
        """(B, L, caption_channels) -> (B, L, D)."""
        return self.y_proj(text)


class _Rotary(nn.Module):
    """Positions in time: angles by which neighbouring pairs of a head's channels are turned."""

    def __init__(self, head: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.empty(head // 2))

    def forward(self, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (T, head) each, in float32."""
        angles = torch.outer(torch.arange(frames, device=device).float(), self.freqs.to(device).float())
        angles = repeat(angles, "t d -> t (d two)", two=2)
        return angles.cos(), angles.sin()


class _FinalLayer(nn.Module):
    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        width, channels = config.hidden_size, config.in_channels * (2 if config.pred_sigma else 1)
        self.norm_final = _norm(width)
        self.linear = nn.Linear(width, math.prod(config.patch_size) * channels)
        self.scale_shift_table = nn.Parameter(torch.empty(2, width))

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.scale_shift_table.to(hidden)[:, None, None] + time[:, None]
        return self.linear(_modulated(self.norm_final(hidden), shift, scale))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """x: (N, heads, T, head). Turns its channels, pair by pair, by the angles of each time."""
    cosine, sine = (turn.to(x) for turn in turns)
    first, second = rearrange(x, "... (d two) -> two ... d", two=2)
    return x * cosine + rearrange([-second, first], "two ... d -> ... (d two)") * sine


def _positions(patches: Tensor, scale: float) -> Tensor:
    """Sinusoids of each place in a frame, (h w, D): columns in the first half of the channels, rows in the
    second. Both axes are stretched to the side of a square of the same area, in units of the base size."""
    width, _, rows, columns = patches.shape[1:]
    side = round(math.sqrt(rows * columns))
    quarter = width // 4
    frequencies = 10000 ** -(torch.arange(quarter, device=patches.device) / quarter)

    def sinusoids(count: int) -> Tensor:
        places = torch.arange(count, device=patches.device) / scale * (side / count)
        angles = torch.outer(places, frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    across = repeat(sinusoids(columns), "w d -> (h w) d", h=rows)
    down = repeat(sinusoids(rows), "h d -> (h w) d", w=columns)
    return torch.cat((across, down), dim=1).to(patches.dtype)
