"""Graphs for the models of the paper, which OmniCache Diffusers Loader loads. Their weights are not here, so
the tests only look whether the host would take them."""

from collections.abc import Callable
from typing import Any

Graph = dict[str, dict[str, Any]]

STEPS = 50
PROMPT = "A golden retriever runs along a beach at sunset, waves behind it"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _sampled(cfg: float, scheduler: str, positive: list, negative: list, latent: list) -> Graph:
    return {
        "auto": node("OmniCacheAuto", model=["load", 0], budget="faithful (about 1.9x)"),
        "sample": node(
            "KSampler", model=["auto", 0], seed=1, steps=STEPS, cfg=cfg, sampler_name="ddim",
            scheduler=scheduler, denoise=1.0, positive=positive, negative=negative, latent_image=latent,
        ),
    }  # fmt: skip


def _loaded(folder: str) -> Graph:
    return {"load": node("OmniCacheDiffusersLoader", model_folder=folder, weight_dtype="default")}


def _prompted(clip: list) -> Graph:
    return {
        "positive": node("CLIPTextEncode", clip=clip, text=PROMPT),
        "negative": node("CLIPTextEncode", clip=clip, text=""),
    }


def _t5() -> Graph:
    return {
        "clip": node("CLIPLoader", clip_name="t5xxl_fp16.safetensors", type="pixart", device="default"),
    }


def _sd_vae() -> Graph:
    return {"vae": node("VAELoader", vae_name="vae-ft-mse-840000-ema-pruned.safetensors")}


def _video(prefix: str) -> Graph:
    return {
        "video": node("CreateVideo", images=["decode", 0], fps=8.0),
        "save": node("SaveVideo", video=["video", 0], filename_prefix=prefix, format="auto", codec="auto"),
    }


def dit() -> Graph:
    return {
        **_loaded("DiT-XL-2-256"),
        "positive": node("OmniCacheClassLabel", label=207),
        "negative": node("OmniCacheClassLabel", label=-1),
        "empty": node("EmptyLatentImage", width=256, height=256, batch_size=4),
        **_sampled(4.0, "ddim_uniform", ["positive", 0], ["negative", 0], ["empty", 0]),
        **_sd_vae(),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="omnicache/dit"),
    }


def latte() -> Graph:
    return {
        **_loaded("Latte-1"),
        **_t5(),
        **_prompted(["clip", 0]),
        # 61 pictures here are 16 latents, of which Latte makes a picture each.
        "empty": node("EmptyHunyuanLatentVideo", width=512, height=512, length=61, batch_size=1),
        **_sampled(7.5, "ddim_uniform", ["positive", 0], ["negative", 0], ["empty", 0]),
        "frames": node("OmniCacheFramesToBatch", samples=["sample", 0]),
        **_sd_vae(),
        "decode": node("VAEDecode", samples=["frames", 0], vae=["vae", 0]),
        **_video("omnicache/latte"),
    }


def _cogvideox(folder: str) -> Graph:
    return {
        **_loaded(folder),
        "vae": node("OmniCacheDiffusersVAELoader", model_folder=folder),
        **_t5(),
        # CogVideoX was trained on prompts that are filled up to 226 tokens.
        "pad": node("T5TokenizerOptions", clip=["clip", 0], min_padding=0, min_length=226),
        **_prompted(["pad", 0]),
    }


def cogvideox() -> Graph:
    return {
        **_cogvideox("CogVideoX-5b"),
        "empty": node("EmptyHunyuanLatentVideo", width=720, height=480, length=49, batch_size=1),
        **_sampled(6.0, "sgm_uniform", ["positive", 0], ["negative", 0], ["empty", 0]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        **_video("omnicache/cogvideox"),
    }


def cogvideox_from_image() -> Graph:
    return {
        **_cogvideox("CogVideoX-5b-I2V"),
        "image": node("LoadImage", image="example.png"),
        "begin": node(
            "OmniCacheImageToVideo", positive=["positive", 0], negative=["negative", 0], vae=["vae", 0],
            image=["image", 0], width=720, height=480, length=49,
        ),
        **_sampled(6.0, "sgm_uniform", ["begin", 0], ["begin", 1], ["begin", 2]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        **_video("omnicache/cogvideox_i2v"),
    }  # fmt: skip


def open_sora() -> Graph:
    graph = {
        **_loaded("OpenSora-STDiT-v3"),
        **_t5(),
        "positive": node("CLIPTextEncode", clip=["clip", 0], text=f"{PROMPT}. aesthetic score: 6.5."),
        "negative": node("ConditioningZeroOut", conditioning=["positive", 0]),
        "rate": node("LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=24.0),
        # For 51 pictures of this size: 5 latents are 17 pictures here, where this node reckons 4 to one.
        "shift": node("ModelSamplingSD3", model=["load", 0], shift=4.84),
        "empty": node("EmptyHunyuanLatentVideo", width=848, height=480, length=57, batch_size=1),
        **_sampled(7.0, "simple", ["rate", 0], ["rate", 1], ["empty", 0]),
        "vae": node("OmniCacheDiffusersVAELoader", model_folder="OpenSora-VAE-v1.2"),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        **_video("omnicache/open_sora"),
    }
    graph["auto"]["inputs"]["model"] = ["shift", 0]
    graph["sample"]["inputs"].update(sampler_name="euler", steps=30)
    graph["video"]["inputs"]["fps"] = 24.0
    return graph


LARGE: dict[str, Callable[[], Graph]] = {
    "dit_class_to_image": dit,
    "latte_text_to_video": latte,
    "cogvideox_text_to_video": cogvideox,
    "cogvideox_image_to_video": cogvideox_from_image,
    "opensora_text_to_video": open_sora,
}
