"""Tiny transformers of the diffusers library with random weights, saved as the library saves them, and
diffusers' own sampling loop around them."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from comfyui_omnicache.architectures.table import architecture_of
from comfyui_omnicache.nodes.class_label import OmniCacheClassLabel
from comfyui_omnicache.nodes.diffusers_loader import OmniCacheDiffusersLoader

Conditioning = list

GUIDANCE = 3.0


@dataclass(frozen=True)
class Case:
    """shape: of a latent in the host's order. conditioning: the host's, by a seed. predict: calls the
    transformer as diffusers' pipeline does, on a latent in the host's order. scheduler: configuration."""

    class_name: str
    config: dict[str, Any]
    shape: tuple[int, ...]
    conditioning: Callable[[int], Conditioning]
    predict: Callable[[nn.Module, Tensor, Tensor, Conditioning], Tensor]
    scheduler: dict[str, Any] = field(default_factory=dict)


def _label(seed: int) -> Conditioning:
    return OmniCacheClassLabel.execute(-1 if seed == 2 else seed).args[0]


def _dit(model: nn.Module, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """diffusers' DiTPipeline: null class 1000 of 1000, half of the output is the variance."""
    label = conditioning[0][1]["class_label"]
    classes = torch.tensor([model.config.num_embeds_ada_norm if label < 0 else label] * x.shape[0])
    return model(x, timestep=t, class_labels=classes).sample.chunk(2, dim=1)[0]


CASES = {
    "dit": Case(
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 4, "out_channels": 8,
            "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 10,
        },
        (4, 8, 8), _label, _dit, {"beta_schedule": "linear", "prediction_type": "epsilon"},
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
    DDIMScheduler(**case.scheduler).save_pretrained(folder / "scheduler")
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
