"""Tiny models of the host's own classes with random weights, one for each family, and a sampling run as
KSampler does it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import comfy.model_base as base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models as supported
import torch
from comfy.model_management import InterruptProcessingException

from comfyui_omnicache.architectures.loading import DiffusersModel, ModelConfig
from comfyui_omnicache.architectures.table import architecture_of

CPU = torch.device("cpu")
WIDTH = 64  # of the text tokens


@dataclass(frozen=True)
class Tiny:
    """config: the host's configuration class and what its detection would find in a checkpoint. shape: of one
    latent. blocks: where the blocks and the modules beside them are. conds: what else the conditioning needs,
    made with a generator. text: shape of the text tokens, (1, tokens, width)."""

    config: Callable[[dict[str, Any]], Any]
    unet: dict[str, Any]
    make: Callable[[Any], torch.nn.Module]
    shape: tuple[int, ...]
    blocks: tuple[str, ...]
    text: tuple[int, ...] = (1, 4, WIDTH)
    conds: Callable[[torch.Generator], dict[str, Any]] = field(default=lambda generator: {})
    can_split: bool = True  # whether the host can run its rows apart


def _flux(**changes: Any) -> dict[str, Any]:
    return {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32,
        "context_in_dim": WIDTH, "hidden_size": 128, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [16, 24, 24], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
        **changes,
    }  # fmt: skip


def _chroma(**changes: Any) -> dict[str, Any]:
    config = _flux(out_dim=128, hidden_dim=64, n_layers=1, **changes)
    return {key: value for key, value in config.items() if key not in ("vec_in_dim", "guidance_embed")}


def _wan(**changes: Any) -> dict[str, Any]:
    return {
        "image_model": "wan2.1", "model_type": "t2v", "dim": 128, "ffn_dim": 256, "freq_dim": 256,
        "in_dim": 16, "out_dim": 16, "num_heads": 1, "num_layers": 3, "patch_size": (1, 2, 2),
        "text_dim": WIDTH,
        "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6, **changes,
    }  # fmt: skip


def _hunyuan(**changes: Any) -> dict[str, Any]:
    return {
        "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2],
        "vec_in_dim": 32, "axes_dim": [16, 24, 24], "meanflow": False, "context_in_dim": WIDTH,
        "hidden_size": 128, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
        "theta": 256, "qkv_bias": True, "byt5": False, "guidance_embed": True,
        "use_cond_type_embedding": False,
        "vision_in_dim": None, **changes,
    }  # fmt: skip


def _lumina(**changes: Any) -> dict[str, Any]:
    return {
        "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "n_layers": 3,
        "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 1, "axes_dims": [16, 16, 16],
        "axes_lens": [64, 64, 64], "cap_feat_dim": WIDTH, "qk_norm": True, "multiple_of": 32, **changes,
    }  # fmt: skip


def _cosmos(**changes: Any) -> dict[str, Any]:
    return {
        "max_img_h": 32, "max_img_w": 32, "max_frames": 16, "in_channels": 16, "out_channels": 16,
        "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 128,
        "num_blocks": 3, "num_heads": 2, "mlp_ratio": 2.0, "crossattn_emb_channels": WIDTH,
        "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True, "adaln_lora_dim": 16,
        **changes,
    }  # fmt: skip


def _cogvideox(**changes: Any) -> dict[str, Any]:
    return {
        "_class_name": "CogVideoXTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16,
        "in_channels": 16, "out_channels": 16, "time_embed_dim": 32, "text_embed_dim": WIDTH, "num_layers": 3,
        "sample_width": 8, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 4, **changes,
    }  # fmt: skip


def _audio(generator: torch.Generator) -> dict[str, Any]:
    return {"audio_embed": torch.randn(1, 25, 1024, 12, generator=generator)}


def _stable_audio(config: Any) -> torch.nn.Module:
    seconds = {
        name: torch.randn_like(tensor) * 0.05
        for name, tensor in base.comfy.ldm.audio.embedders.NumberConditioner(768).state_dict().items()
    }
    return base.StableAudio1(config, seconds, seconds, device=CPU)


def _of_library(unet: dict[str, Any]) -> ModelConfig:
    """unet: a config.json of the diffusers library."""
    return ModelConfig(unet, architecture_of(unet["_class_name"], "").noise(unet), 1.0)


def _with_memory(config: ModelConfig) -> DiffusersModel:
    """Where the loader would put in the weights."""
    model = DiffusersModel(config)
    model.diffusion_model.to_empty(device=CPU).to(model.get_dtype())
    return model


_STREAMS = ("double_blocks", "single_blocks")
_REFINED = ("noise_refiner", "layers", "context_refiner")

MODELS = {
    "sd3": Tiny(
        supported.SD3,
        {"in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 3, "input_size": None,
         "adm_in_channels": 32, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
         "context_embedder_config": {"target": "torch.nn.Linear",
                                     "params": {"in_features": WIDTH, "out_features": 192}}},
        lambda config: base.SD3(config, device=CPU), (16, 8, 8), ("joint_blocks",),
    ),
    "flux": Tiny(supported.Flux, _flux(), lambda config: base.Flux(config, device=CPU), (16, 8, 8), _STREAMS),
    "flux2": Tiny(
        supported.Flux2,
        _flux(image_model="flux2", patch_size=1, in_channels=128, out_channels=128, global_modulation=True,
              vec_in_dim=None, mlp_silu_act=True, qkv_bias=False, ops_bias=False, default_ref_method="index",
              ref_index_scale=10.0, axes_dim=[16, 16, 16, 16]),
        lambda config: base.Flux2(config, device=CPU), (128, 4, 4), _STREAMS,
    ),
    "chroma": Tiny(
        supported.Chroma, _chroma(image_model="chroma", in_channels=64, out_channels=64, in_dim=64),
        lambda config: base.Chroma(config, device=CPU), (16, 8, 8), _STREAMS,
    ),
    "chroma-radiance": Tiny(
        supported.ChromaRadiance,
        _chroma(image_model="chroma_radiance", in_channels=3, out_channels=3, patch_size=16, in_dim=64,
                nerf_hidden_size=8, nerf_mlp_ratio=2, nerf_depth=1, nerf_max_freqs=4, nerf_tile_size=512,
                nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32),
        lambda config: base.ChromaRadiance(config, device=CPU), (3, 32, 32), _STREAMS,
    ),
    "wan": Tiny(supported.WAN21_T2V, _wan(), lambda config: base.WAN21(config, device=CPU), (16, 3, 6, 6),
                ("blocks",)),
    "wan-i2v": Tiny(
        supported.WAN21_I2V, _wan(model_type="i2v", in_dim=36),
        lambda config: base.WAN21(config, image_to_video=True, device=CPU), (16, 3, 6, 6), ("blocks",),
    ),
    "wan-vace": Tiny(
        supported.WAN21_Vace, _wan(model_type="vace", vace_layers=2, vace_in_dim=96, num_layers=4),
        lambda config: base.WAN21_Vace(config, device=CPU), (16, 3, 6, 6), ("blocks", "vace_blocks"),
    ),
    "wan-camera": Tiny(
        supported.WAN21_Camera, _wan(model_type="camera", in_dim=32),
        lambda config: base.WAN21_Camera(config, device=CPU), (16, 3, 6, 6), ("blocks",),
        conds=lambda g: {"camera_conditions": torch.randn(1, 24, 3, 48, 48, generator=g)},
    ),
    "wan-s2v": Tiny(
        supported.WAN22_S2V, _wan(model_type="s2v", audio_inject_layers=[0, 2]),
        lambda config: base.WAN22_S2V(config, device=CPU), (16, 3, 6, 6), ("blocks",),
    ),
    "wan-humo": Tiny(
        supported.WAN21_HuMo, _wan(model_type="humo"),
        lambda config: base.WAN21_HuMo(config, device=CPU), (16, 3, 6, 6), ("blocks",),
    ),
    "wan-animate": Tiny(
        supported.WAN22_Animate, _wan(model_type="animate", in_dim=36),
        lambda config: base.WAN22_Animate(config, device=CPU), (16, 3, 6, 6), ("blocks",),
    ),
    "hunyuan-video": Tiny(
        supported.HunyuanVideo, _hunyuan(), lambda config: base.HunyuanVideo(config, device=CPU),
        (16, 3, 6, 6), _STREAMS,
    ),
    "hunyuan-video-1.5": Tiny(
        supported.HunyuanVideo15,
        _hunyuan(in_channels=65, out_channels=32, patch_size=[1, 1, 1], vec_in_dim=None, guidance_embed=False,
                 use_cond_type_embedding=True),
        lambda config: base.HunyuanVideo15(config, device=CPU), (32, 3, 4, 4), _STREAMS,
    ),
    "ltxv": Tiny(
        supported.LTXV,
        {"image_model": "ltxv", "in_channels": 128, "num_layers": 3, "attention_head_dim": 32,
         "num_attention_heads": 4, "cross_attention_dim": 128, "caption_channels": WIDTH},
        lambda config: base.LTXV(config, device=CPU), (128, 3, 4, 4), ("transformer_blocks",),
        conds=lambda g: {"attention_mask": torch.ones(1, 4, dtype=torch.long)},
    ),
    "cosmos": Tiny(
        supported.CosmosT2V,
        _cosmos(block_config="FA-CA-MLP", block_x_format="THWBD", affline_emb_norm=True,
                pos_emb_interpolation="crop", extra_per_block_abs_pos_emb=True,
                extra_per_block_abs_pos_emb_type="learnable"),
        lambda config: base.CosmosVideo(config, device=CPU), (16, 3, 8, 8), ("blocks",),
    ),
    "cosmos-predict2": Tiny(
        supported.CosmosT2IPredict2, _cosmos(image_model="cosmos_predict2"),
        lambda config: base.CosmosPredict2(config, device=CPU), (16, 1, 8, 8), ("blocks",),
    ),
    "qwen-image": Tiny(
        supported.QwenImage,
        {"image_model": "qwen_image", "in_channels": 64, "num_layers": 3, "attention_head_dim": 32,
         "num_attention_heads": 4, "joint_attention_dim": WIDTH, "axes_dims_rope": (8, 12, 12)},
        lambda config: base.QwenImage(config, device=CPU), (16, 1, 8, 8), ("transformer_blocks",),
    ),
    "lumina2": Tiny(
        supported.Lumina2, _lumina(), lambda config: base.Lumina2(config, device=CPU), (16, 8, 8), _REFINED,
    ),
    "z-image": Tiny(
        supported.ZImage,
        _lumina(dim=256, n_heads=2, n_kv_heads=2, axes_dims=[32, 48, 48], z_image_modulation=True,
                time_scale=1000.0, pad_tokens_multiple=8),
        lambda config: base.Lumina2(config, device=CPU), (16, 8, 8), _REFINED,
    ),
    "omnigen2": Tiny(
        supported.Omnigen2,
        {"image_model": "omnigen2", "hidden_size": 96, "num_layers": 3, "num_refiner_layers": 1,
         "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 32, "axes_dim_rope": [16, 16, 16],
         "axes_lens": [64, 64, 64], "text_feat_dim": WIDTH},
        lambda config: base.Omnigen2(config, device=CPU), (16, 8, 8), _REFINED,
        conds=lambda g: {"attention_mask": torch.ones(1, 4, dtype=torch.long)},
    ),
    "hidream": Tiny(
        supported.HiDream,
        {"image_model": "hidream", "attention_head_dim": 64, "axes_dims_rope": [32, 16, 16],
         "caption_channels": [WIDTH, WIDTH], "max_resolution": [32, 32], "in_channels": 16,
         "llama_layers": [0, 1, 2, 3], "num_attention_heads": 2, "num_routed_experts": 2,
         "num_activated_experts": 1, "num_layers": 2, "num_single_layers": 2, "out_channels": 16,
         "patch_size": 2, "text_emb_dim": 32},
        lambda config: base.HiDream(config, device=CPU), (16, 8, 8),
        ("double_stream_blocks", "single_stream_blocks"),
        conds=lambda g: {"conditioning_llama3": torch.randn(1, 4, 4, WIDTH, generator=g)},
    ),
    "auraflow": Tiny(
        supported.AuraFlow,
        {"in_channels": 4, "out_channels": 4, "dim": 128, "n_layers": 4, "n_double_layers": 2, "n_heads": 2,
         "global_conddim": 128, "cond_seq_dim": WIDTH, "max_seq": 256},
        lambda config: base.AuraFlow(config, device=CPU), (4, 8, 8), ("double_layers", "single_layers"),
    ),
    "pixart": Tiny(
        supported.PixArtSigma,
        {"input_size": 8, "hidden_size": 96, "depth": 2, "num_heads": 2, "caption_channels": WIDTH,
         "model_max_length": 4, "micro_condition": False},
        lambda config: base.PixArt(config, device=CPU), (4, 72, 72), ("blocks",),
    ),
    "pixart-alpha": Tiny(
        supported.PixArtAlpha,
        {"input_size": 8, "hidden_size": 96, "depth": 2, "num_heads": 2, "caption_channels": WIDTH,
         "model_max_length": 4, "micro_condition": True},
        lambda config: base.PixArt(config, device=CPU), (4, 72, 72), ("blocks",),
        conds=lambda g: {"width": 64, "height": 64},
    ),
    "mochi": Tiny(
        supported.GenmoMochi,
        {"image_model": "mochi_preview", "depth": 3, "patch_size": 2, "num_heads": 2, "hidden_size_x": 128,
         "hidden_size_y": 64, "mlp_ratio_x": 96.0, "mlp_ratio_y": 2.0, "learn_sigma": False,
         "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0,
         "patch_embed_bias": True,
         "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False,
         "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": WIDTH, "t5_token_length": 4,
         "rope_theta": 10000.0},
        lambda config: base.GenmoMochi(config, device=CPU), (12, 2, 6, 6), ("blocks",),
        conds=lambda g: {"attention_mask": torch.ones(1, 4, dtype=torch.long)},
    ),
    "hunyuan-dit": Tiny(
        supported.HunyuanDiT,
        {"image_model": "hydit", "depth": 6, "hidden_size": 128, "num_heads": 2, "input_size": 8,
         "text_states_dim": WIDTH, "text_states_dim_t5": WIDTH, "text_len": 4, "text_len_t5": 4},
        lambda config: base.HunyuanDiT(config, device=CPU), (4, 8, 8), ("blocks",),
        conds=lambda g: {"attention_mask": torch.ones(1, 4, dtype=torch.long),
                         "attention_mask_mt5xl": torch.ones(1, 4, dtype=torch.long),
                         "conditioning_mt5xl": torch.randn(1, 4, WIDTH, generator=g)},
    ),
    "ace-step": Tiny(
        supported.ACEStep,
        {"audio_model": "ace", "attention_head_dim": 32, "in_channels": 8, "inner_dim": 128, "max_height": 16,
         "max_position": 256, "max_width": 256, "mlp_ratio": 2.0, "num_attention_heads": 4, "num_layers": 3,
         "out_channels": 8, "patch_size": [16, 1], "rope_theta": 1000000.0, "speaker_embedding_dim": 512,
         "text_embedding_dim": WIDTH, "lyric_hidden_size": 1024},
        lambda config: base.ACEStep(config, device=CPU), (8, 16, 12), ("transformer_blocks",),
        conds=lambda g: {"conditioning_lyrics": torch.randint(0, 100, (1, 5), generator=g)},
    ),
    "stable-audio": Tiny(
        supported.StableAudio, {"audio_model": "dit1.0", "embed_dim": 128, "depth": 3, "num_heads": 2},
        _stable_audio, (64, 16), ("transformer.layers",), text=(1, 4, 768),
    ),
    "dit": Tiny(
        _of_library,
        {"_class_name": "DiTTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 32,
         "in_channels": 4, "out_channels": 8, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 10},
        _with_memory, (4, 8, 8),
        # The embedding of the first block is called behind the last one too.
        ("transformer.transformer_blocks.0.attn1", "transformer.transformer_blocks.0.ff",
         "transformer.transformer_blocks.1", "transformer.transformer_blocks.2"),
        conds=lambda g: {"class_label": int(torch.randint(10, (1,), generator=g))},
    ),
    "latte": Tiny(
        _of_library,
        {"_class_name": "LatteTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16,
         "in_channels": 4, "out_channels": 8, "num_layers": 2, "cross_attention_dim": 32,
         "attention_bias": True, "sample_size": 8, "patch_size": 2, "activation_fn": "gelu-approximate",
         "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single", "norm_elementwise_affine": False,
         "norm_eps": 1e-6, "caption_channels": WIDTH, "video_length": 3},
        _with_memory, (4, 3, 8, 8),
        ("transformer.transformer_blocks", "transformer.temporal_transformer_blocks"),
    ),
    "cogvideox": Tiny(
        _of_library, _cogvideox(), _with_memory, (16, 3, 8, 8), ("transformer.transformer_blocks",),
    ),
    "cogvideox-i2v-1.5": Tiny(
        _of_library,
        _cogvideox(use_rotary_positional_embeddings=True, in_channels=32, patch_size_t=2, ofs_embed_dim=32,
                   patch_bias=False),
        _with_memory, (16, 4, 8, 8), ("transformer.transformer_blocks",),
        conds=lambda g: {"concat_latent_image": torch.randn(1, 16, 1, 8, 8, generator=g)},
    ),
    "open-sora": Tiny(
        _of_library,
        {"_class_name": "STDiT3", "hidden_size": 48, "depth": 2, "num_heads": 4, "caption_channels": WIDTH,
         "model_max_length": 9, "input_sq_size": 32},
        _with_memory, (4, 3, 5, 8), ("transformer.spatial_blocks", "transformer.temporal_blocks"),
    ),
    "hunyuan3d": Tiny(
        supported.Hunyuan3Dv2,
        {"image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": WIDTH, "hidden_size": 128,
         "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "qkv_bias": True,
         "guidance_embed": False},
        lambda config: base.Hunyuan3Dv2(config, device=CPU), (64, 32), _STREAMS,
    ),
    "hunyuan3d-2.1": Tiny(
        supported.Hunyuan3Dv2_1,
        {"image_model": "hunyuan3d2_1", "in_channels": 64, "context_dim": WIDTH, "hidden_size": 128,
         "mlp_ratio": 2.0, "num_heads": 2, "depth": 5, "qkv_bias": False, "guidance_cond_proj_dim": None,
         "num_moe_layers": 1, "num_experts": 2, "moe_top_k": 1},
        lambda config: base.Hunyuan3Dv2_1(config, device=CPU), (64, 32), ("blocks",), can_split=False,
    ),
}  # fmt: skip


def build(
    family: str, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> comfy.model_patcher.ModelPatcher:
    """A tiny model with random weights, in which nothing is zero: neither gates nor last layers."""
    tiny = MODELS[family]
    torch.manual_seed(0)
    config = tiny.config(dict(tiny.unet))
    config.set_inference_dtype(dtype, None)
    with torch.no_grad():
        model = tiny.make(config).to(device)
        for tensor in [*model.diffusion_model.parameters(), *model.diffusion_model.buffers()]:
            if tensor.is_floating_point():
                tensor.normal_(0, 0.08 if tensor.ndim > 1 else 0.05)
    return comfy.model_patcher.ModelPatcher(model, device, device)


def count_leaf_calls(model, family: str) -> list[int]:
    """A counter of the calls of all layers inside the blocks and the modules beside them."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    for name in MODELS[family].blocks:
        for module in attrgetter(name)(model.model.diffusion_model).modules():
            if not list(module.children()):
                module.register_forward_hook(count)
    return calls


def raising_at(step: int, error: type[BaseException] = InterruptProcessingException) -> Callable:
    """A sampler's callback that raises at this step; if no error is named, as the user's interrupt does."""

    def stop(now: int, *_) -> None:
        if now == step:
            raise error

    return stop


def conditioning(family: str, seed: int) -> list:
    tiny, generator = MODELS[family], torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 32, generator=generator)
    tokens = torch.randn(*tiny.text, generator=generator)
    return [[tokens, {"pooled_output": pooled, **tiny.conds(generator)}]]


def sample(
    model, family: str, steps: int = 12, cfg: float = 3.0, sampler: str = "euler", batch: int = 1,
    seed: int = 1, callback: Callable | None = None, scheduler: str = "simple",
) -> torch.Tensor:  # fmt: skip
    """The latents of a sampling run through the host's guider and sampler."""
    empty = torch.zeros(batch, *MODELS[family].shape)
    noise = comfy.sample.prepare_noise(empty, seed)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, conditioning(family, 1),
            conditioning(family, 2), empty, seed=seed, callback=callback, disable_pbar=True,
        )  # fmt: skip
