"""A demo model in this process, to sample and compare. Call in_process.load_host() first."""

import comfy.sample
import comfy.sd
import torch

from in_process import ROOT, load_pack

demo = load_pack("omnicache_demo", ROOT / "demo" / "omnicache_demo")

from omnicache_demo import nodes as demo_nodes  # noqa: E402
from omnicache_demo.codec import Codec  # noqa: E402

PROMPT = {"image": "car on yellow", "video": "fox spinning on blue"}


class DemoModel:
    """model: the host's ModelPatcher of a demo model. kind: "image" or "video"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        weights = ROOT / "demo" / "models" / "diffusion_models" / f"omnicache_demo_{kind}.safetensors"
        self.model = comfy.sd.load_diffusion_model(str(weights))
        self.profile_path = ROOT / "schedules" / f"omnicache_demo_{kind}.json"
        self._positive = demo_nodes.OmniCacheDemoText.execute(kind, PROMPT[kind])[0]
        self._negative = demo_nodes.OmniCacheDemoText.execute(kind, "")[0]
        self._codec = Codec.load()

    def sample(
        self, model, sampler: str, steps: int, batch: int, cfg: float = 2.5, seed: int = 1
    ) -> torch.Tensor:
        """Pictures (count, channels, height, width) in 0..1; the frames of videos one after the other."""
        empty = torch.zeros(batch, *demo_nodes.LATENT_SHAPE[self.kind])
        noise = comfy.sample.prepare_noise(empty, seed)
        with torch.inference_mode():
            latents = comfy.sample.sample(
                model, noise, steps, cfg, sampler, "simple", self._positive, self._negative, empty, seed=seed,
                disable_pbar=True,
            )  # fmt: skip
            if self.kind == "video":
                latents = latents.transpose(1, 2).flatten(0, 1)
            return (self._codec.decode(latents).clamp(-1, 1) + 1) / 2


def psnr(pictures: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean over the pictures, dB, at most 100."""
    errors = ((pictures - reference) ** 2).flatten(1).mean(1)
    return (-10 * torch.log10(errors.clamp_min(1e-10))).mean().item()
