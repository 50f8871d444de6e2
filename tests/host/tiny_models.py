"""Tiny models of the host's own classes with random weights, and a sampling run as KSampler does it."""

from collections.abc import Callable

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import torch

CPU = torch.device("cpu")


def _patcher(make: Callable, config) -> comfy.model_patcher.ModelPatcher:
    torch.manual_seed(0)
    config.set_inference_dtype(torch.float32, None)
    with torch.no_grad():
        model = make(config)
        for tensor in [*model.diffusion_model.parameters(), *model.diffusion_model.buffers()]:
            tensor.normal_(0, 0.08 if tensor.ndim > 1 else 0.05)  # gates and last layers too: nothing is zero
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


def tiny_sd3() -> comfy.model_patcher.ModelPatcher:
    config = comfy.supported_models.SD3(
        {
            "in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 3, "input_size": None,
            "adm_in_channels": 32, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
            "context_embedder_config": {
                "target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 192}
            },
        }
    )  # fmt: skip
    return _patcher(lambda made: comfy.model_base.SD3(made, device=CPU), config)


def tiny_wan() -> comfy.model_patcher.ModelPatcher:
    config = comfy.supported_models.WAN21_T2V(
        {
            "image_model": "wan2.1", "model_type": "t2v", "dim": 128, "ffn_dim": 256, "freq_dim": 256,
            "in_dim": 16,
            "out_dim": 16, "num_heads": 1, "num_layers": 3, "patch_size": (1, 2, 2), "text_dim": 64,
            "qk_norm": True,
            "cross_attn_norm": True, "eps": 1e-6,
        }
    )  # fmt: skip
    return _patcher(lambda made: comfy.model_base.WAN21(made, device=CPU), config)


def tiny_flux() -> comfy.model_patcher.ModelPatcher:
    config = comfy.supported_models.Flux(
        {
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32,
            "context_in_dim": 64,
            "hidden_size": 128, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
            "axes_dim": [16, 24, 24], "theta": 10000, "patch_size": 2, "qkv_bias": True,
            "guidance_embed": True,
        }
    )  # fmt: skip
    return _patcher(lambda made: comfy.model_base.Flux(made, device=CPU), config)


MODELS = {"sd3": tiny_sd3, "wan": tiny_wan, "flux": tiny_flux}
SHAPES = {"sd3": (16, 8, 8), "wan": (16, 3, 6, 6), "flux": (16, 8, 8)}


def blocks_of(model) -> list[torch.nn.Module]:
    """Every transformer block, in the order of the forward."""
    net = model.model.diffusion_model
    names = [
        name for name in ("joint_blocks", "blocks", "double_blocks", "single_blocks") if hasattr(net, name)
    ]
    return [block for name in names for block in getattr(net, name)]


def conditioning(seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 32, generator=generator)
    return [[torch.randn(1, 4, 64, generator=generator), {"pooled_output": pooled}]]


def sample(
    model, family: str, steps: int = 12, cfg: float = 3.0, sampler: str = "euler", batch: int = 1,
    seed: int = 1,
    callback: Callable | None = None,
) -> torch.Tensor:  # fmt: skip
    """The latents of a sampling run through the host's guider and sampler."""
    empty = torch.zeros(batch, *SHAPES[family])
    noise = comfy.sample.prepare_noise(empty, seed)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, "simple", conditioning(1), conditioning(2), empty, seed=seed,
            callback=callback, disable_pbar=True,
        )  # fmt: skip
