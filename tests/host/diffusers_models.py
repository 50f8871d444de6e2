"""Tiny transformers of the diffusers library with random weights, saved as the library saves them, and
diffusers' own sampling loop around them."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline, DDIMScheduler
from torch import Tensor, nn

from comfyui_omnicache.architectures.table import architecture_of
from comfyui_omnicache.nodes.class_label import OmniCacheClassLabel
from comfyui_omnicache.nodes.diffusers_loader import OmniCacheDiffusersLoader

Conditioning = list

GUIDANCE = 3.0


@dataclass(frozen=True)
class Case:
    """shape: of a latent in the host's order. conditioning: the host's, by a seed. predict: calls the
    transformer as diffusers' pipeline does, on a latent in the host's order. scheduler: its configuration."""

    class_name: str
    config: dict[str, Any]
    shape: tuple[int, ...]
    conditioning: Callable[[int], Conditioning]
    predict: Callable[[nn.Module, Tensor, Tensor, Conditioning], Tensor]
    scheduler: dict[str, Any] = field(default_factory=dict)
    scheduler_class: type = DDIMScheduler


def _label(seed: int) -> Conditioning:
    return OmniCacheClassLabel.execute(-1 if seed == 2 else seed).args[0]


def _dit(model: nn.Module, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """diffusers' DiTPipeline: null class 1000 of 1000, half of the output is the variance."""
    label = conditioning[0][1]["class_label"]
    classes = torch.tensor([model.config.num_embeds_ada_norm if label < 0 else label] * x.shape[0])
    return model(x, timestep=t, class_labels=classes).sample.chunk(2, dim=1)[0]


def _text(seed: int) -> Conditioning:
    """Prompts of different lengths, one of them as long as can be."""
    tokens = torch.randn(1, 3 + seed, 64, generator=torch.Generator().manual_seed(seed))
    return [[tokens, {}]]


def _latte(model: nn.Module, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """diffusers' LattePipeline."""
    tokens = conditioning[0][0].expand(x.shape[0], -1, -1)
    return model(x, timestep=t, encoder_hidden_states=tokens).sample.chunk(2, dim=1)[0]


def _text_and_image(seed: int) -> Conditioning:
    image = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    return [[_text(seed)[0][0], {"concat_latent_image": image}]]


def _cogvideox(model: nn.Module, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """diffusers' CogVideoXPipeline and CogVideoXImageToVideoPipeline."""
    config, ((tokens, options),) = model.config, conditioning
    tokens = nn.functional.pad(tokens, (0, 0, 0, config.max_text_seq_length - tokens.shape[1]))
    x = x.permute(0, 2, 1, 3, 4)
    rotation, ofs = None, None
    if config.use_rotary_positional_embeddings:
        pipeline = SimpleNamespace(vae_scale_factor_spatial=8, transformer=model)
        height, width = x.shape[-2] * 8, x.shape[-1] * 8
        rotation = CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipeline, height, width, x.shape[1], x.device
        )
    if "concat_latent_image" in options:
        scale = 0.7 if config.patch_size_t is None else 1 / 0.7
        image = options["concat_latent_image"].permute(0, 2, 1, 3, 4) * scale
        padding = torch.zeros(1, x.shape[1] - 1, *image.shape[2:])
        image = torch.cat([image, padding], dim=1).expand(x.shape[0], -1, -1, -1, -1)
        x = torch.cat([x, image], dim=2)
    if config.ofs_embed_dim:
        ofs = x.new_full((1,), 2.0)
    out = model(
        x, encoder_hidden_states=tokens.expand(x.shape[0], -1, -1), timestep=t, ofs=ofs,
        image_rotary_emb=rotation,
    ).sample  # fmt: skip
    return out.permute(0, 2, 1, 3, 4)


_COGVIDEOX = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "out_channels": 16,
    "time_embed_dim": 32, "text_embed_dim": 64, "num_layers": 3, "sample_width": 8, "sample_height": 8,
    "sample_frames": 9, "max_text_seq_length": 5,
}  # fmt: skip
_ROTARY = {"use_rotary_positional_embeddings": True}
_COGVIDEOX_NOISE = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip

CASES = {
    "dit": Case(
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 4, "out_channels": 8,
            "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 10,
        },
        (4, 8, 8), _label, _dit, {"beta_schedule": "linear", "prediction_type": "epsilon"},
    ),
    "latte": Case(
        "LatteTransformer3DModel",
        {
            "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 8,
            "num_layers": 2, "cross_attention_dim": 32, "attention_bias": True, "sample_size": 8,
            "patch_size": 2, "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "norm_eps": 1e-6,
            "caption_channels": 64, "video_length": 3,
        },
        (4, 3, 8, 8), _text, _latte, {"beta_schedule": "linear", "prediction_type": "epsilon"},
    ),
    "cogvideox-2b": Case(
        "CogVideoXTransformer3DModel", _COGVIDEOX, (16, 3, 8, 8), _text, _cogvideox,
        _COGVIDEOX_NOISE | {"snr_shift_scale": 3.0}, CogVideoXDDIMScheduler,
    ),
    "cogvideox-5b": Case(
        "CogVideoXTransformer3DModel", _COGVIDEOX | _ROTARY, (16, 3, 12, 6), _text, _cogvideox,
        _COGVIDEOX_NOISE | {"snr_shift_scale": 1.0}, CogVideoXDDIMScheduler,
    ),
    "cogvideox-5b-i2v": Case(
        "CogVideoXTransformer3DModel",
        _COGVIDEOX | _ROTARY | {"use_learned_positional_embeddings": True, "in_channels": 32},
        (16, 3, 8, 8), _text_and_image, _cogvideox, _COGVIDEOX_NOISE | {"snr_shift_scale": 1.0},
        CogVideoXDDIMScheduler,
    ),
    "cogvideox-1.5-i2v": Case(
        "CogVideoXTransformer3DModel",
        _COGVIDEOX | _ROTARY | {"in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 32,
                                "patch_bias": False},
        (16, 4, 8, 8), _text_and_image, _cogvideox, _COGVIDEOX_NOISE | {"snr_shift_scale": 1.0},
        CogVideoXDDIMScheduler,
    ),
}  # fmt: skip


def transformer_of(case: Case, **changes: Any) -> nn.Module:
    """Random weights, in which nothing is zero: neither gates nor last layers."""
    module = architecture_of(case.class_name, "").module
    torch.manual_seed(0)
    model = getattr(importlib.import_module(module), case.class_name)(**case.config | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.08 if parameter.ndim > 1 else 0.05)
    return model.eval()


def save(case: Case, folder: Path, model: nn.Module | None = None, **options: Any) -> nn.Module:
    """Writes a pipeline's folders, as far as the loader reads them."""
    model = model or transformer_of(case)
    model.save_pretrained(folder / "transformer", **options)
    case.scheduler_class(**case.scheduler).save_pretrained(folder / "scheduler")
    return model


def load(name: str, weight_dtype: str = "default"):
    return OmniCacheDiffusersLoader.execute(name, weight_dtype).args[0]


def host_latents(
    model, case: Case, sampler: str, timesteps: Tensor, noise: Tensor, cfg: float, **options: Any
) -> Tensor:
    """Through the host's guider and sampler, at the noise levels of these timesteps."""
    sigmas = model.get_model_object("model_sampling").sigmas[timesteps]
    return sample_at(model, case, sampler, sigmas, noise, cfg, **options)


def sample_at(
    model, case: Case, sampler: str, sigmas: Tensor, noise: Tensor, cfg: float, **options: Any
) -> Tensor:
    """Through the host's guider and sampler, at these noise levels and then none."""
    samplers = comfy.samplers
    chosen = samplers.ksampler(sampler, options) if options else samplers.sampler_object(sampler)
    with torch.inference_mode():
        latents = comfy.sample.sample_custom(
            model, noise, cfg, chosen, torch.cat((sigmas, sigmas.new_zeros(1))), case.conditioning(1),
            case.conditioning(2), torch.zeros_like(noise), disable_pbar=True, seed=1,
        )  # fmt: skip
    return model.model.process_latent_in(latents)


def diffusers_latents(model: nn.Module, case: Case, scheduler: Any, x: Tensor, cfg: float) -> Tensor:
    """The loop of diffusers' pipelines from initial latents, with their schedulers."""
    with torch.inference_mode():
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = case.predict(model, given, t.expand(x.shape[0]), case.conditioning(1))
            if cfg != 1.0:
                without = case.predict(model, given, t.expand(x.shape[0]), case.conditioning(2))
                output = without + cfg * (output - without)
            x = scheduler.step(output, t, x).prev_sample
    return x
