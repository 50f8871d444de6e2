"""Makes a MODEL of the host out of a transformer in the diffusers layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from comfy.model_base import ModelType

from .checkpoint import CONFIG, Kind, class_name_of, fitting, folder_of, names, read_json, read_weights
from .noise import Noise
from .table import ARCHITECTURES, Architecture, architecture_of

SCHEDULER = "scheduler_config.json"
TRANSFORMERS = Kind(
    ("diffusion_models", "diffusers"),
    "transformer",
    lambda name: "Transformer" in name or name in {row.class_name for row in ARCHITECTURES},
)
WEIGHT_DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}

_TYPES = {
    "epsilon": ModelType.EPS,
    "v_prediction": ModelType.V_PREDICTION,
    "flow": ModelType.FLOW,
}
# The memory that the host reckons with grows with the width, as for its own transformers: 1.8 for the 3072 of
# HunyuanVideo, 0.5 for the 1152 of PixArt.
_WIDTH_OF_FACTOR_1 = 1700


class ModelConfig(comfy.supported_models_base.BASE):
    """What the host asks of a model before it is made."""

    unet_extra_config: dict[str, Any] = {}

    def __init__(self, config: Mapping[str, Any], noise: Noise, latent_scale: float) -> None:
        """config: of the transformer."""
        architecture = architecture_of(class_name_of(config), CONFIG)
        super().__init__({"transformer_class": architecture.transformer_class(), "config": config})
        self.architecture, self.noise, self.latent_scale = architecture, noise, latent_scale
        self.sampling_settings = noise.settings


class DiffusersModel(comfy.model_base.BaseModel):
    """A transformer of the diffusers library among the host's models, without weights at first."""

    def __init__(self, config: ModelConfig, device: torch.device | None = None) -> None:
        super().__init__(config, _TYPES[config.noise.prediction], device, config.architecture.adapter)
        adapter = self.diffusion_model
        self.latent_format = _latent_format(adapter.latent_channels, config.latent_scale, adapter.is_video)
        width = adapter.config.num_attention_heads * adapter.config.attention_head_dim
        self.memory_usage_factor = width / _WIDTH_OF_FACTOR_1
        if config.noise.prediction != "flow":
            self.model_sampling.set_sigmas(config.noise.sigmas())

    def extra_conds(self, **given: Any) -> dict[str, Any]:
        self.diffusion_model.check_latent(tuple(given["noise"].shape))
        conditions = self.diffusion_model.conditions(self.latent_format.scale_factor, **given)
        return super().extra_conds(**given) | conditions


def menu() -> list[str]:
    return names(TRANSFORMERS)


def load(name: str, weight_dtype: str) -> comfy.model_patcher.ModelPatcher:
    """A transformer by its name in the menu. Raises ValueError that names what is wrong, and the file."""
    if weight_dtype not in WEIGHT_DTYPES:
        raise ValueError(f"weight_dtype: {weight_dtype!r} is not one of {', '.join(WEIGHT_DTYPES)}.")
    folder = folder_of(name, TRANSFORMERS)
    config = read_json(folder / CONFIG)
    architecture = architecture_of(class_name_of(config), str(folder / CONFIG))
    model_config = ModelConfig(
        config, _noise(architecture, config, folder), _scale(architecture, config, folder)
    )
    weights = read_weights(folder)
    load_device = comfy.model_management.get_torch_device()
    dtype = WEIGHT_DTYPES[weight_dtype] or _dtype_of(weights.tensors)
    cast_dtype = comfy.model_management.unet_manual_cast(dtype, load_device)
    model_config.set_inference_dtype(dtype, cast_dtype)
    try:
        model = DiffusersModel(model_config)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"model_folder: {folder / CONFIG} describes no model that {architecture.class_name} can be "
            f"({error}). Download it anew, or correct it."
        ) from error
    adapter = model.diffusion_model
    adapter.take(fitting(weights, adapter.transformer), cast_dtype or dtype)
    offload_device = comfy.model_management.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(model.to(offload_device), load_device, offload_device)


def _dtype_of(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """That of most weights."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=sizes.__getitem__)


def _pipeline(folder: Path) -> Path:
    """Where the folders of the other parts are."""
    return folder.parent if folder.name == TRANSFORMERS.part else folder


def _noise(architecture: Architecture, config: Mapping[str, Any], folder: Path) -> Noise:
    noise = architecture.noise(config)
    for file in (folder / SCHEDULER, _pipeline(folder) / "scheduler" / SCHEDULER):
        if file.is_file():
            return noise.overridden_by(read_json(file), str(file))
    return noise


def _scale(architecture: Architecture, config: Mapping[str, Any], folder: Path) -> float:
    """What the VAE beside it says, or the table."""
    file = _pipeline(folder) / "vae" / CONFIG
    given = read_json(file).get("scaling_factor") if file.is_file() else None
    return float(given) if given is not None else architecture.latent_scale(config)


def _latent_format(channels: int, scale: float, is_video: bool) -> comfy.latent_formats.LatentFormat:
    """Four channels are Stable Diffusion's, so that the host can preview them."""
    latent = comfy.latent_formats.SD15() if channels == 4 else comfy.latent_formats.LatentFormat()
    latent.scale_factor, latent.latent_channels = scale, channels
    latent.latent_dimensions = 3 if is_video else 2
    return latent
