"""A demo model in this process, to sample and compare. Call in_process.load_host() first."""

import importlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import comfy.sample
import comfy.samplers
import comfy.sd
import folder_paths
import numpy as np
import torch

import measures
from demo_names import CFG, kind_of
from in_process import PACK, ROOT, load_pack

if TYPE_CHECKING:
    from comfyui_omnicache.omnicache.profile import Profile

demo = load_pack("omnicache_demo", ROOT / "demo" / "omnicache_demo")

from omnicache_demo import nodes as demo_nodes  # noqa: E402
from omnicache_demo import words  # noqa: E402
from omnicache_demo.codec import Codec  # noqa: E402

PROMPT = {"image": "car on yellow", "video": "fox spinning on blue"}


class DemoModel:
    """model: the host's ModelPatcher of a demo model: image, video, image_fewstep or image_dit. kind: what it
    makes. cfg: what it is sampled with."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        """dtype: in which the model computes; the host would take another on a GPU than on a CPU."""
        self.name, self.kind, self.cfg = name, kind_of(name), CFG[name]
        self.takes_labels = name == "image_dit"
        self.model = _load_labelled(name) if self.takes_labels else _load(name, dtype)
        self.profile_path = ROOT / "schedules" / f"omnicache_demo_{name}.json"
        self._codec = Codec.load()

    @cached_property
    def profile(self) -> "Profile":
        """The one that comes with the pack."""
        from comfyui_omnicache.omnicache.profile import Profile

        return Profile.from_json(self.profile_path.read_text(encoding="utf-8"), self.profile_path.name)

    def sigmas(self, steps: int, scheduler: str = "simple") -> np.ndarray:
        """(steps + 1,) what sampling goes through."""
        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, scheduler, steps).numpy()

    def sample(
        self, model, sampler: str, steps: int, batch: int, cfg: float | None = None, seed: int = 1
    ) -> torch.Tensor:
        """Pictures (count, height, width, 3) in 0..1; the frames of videos one after the other."""
        prompts = [PROMPT[self.kind]] * batch
        return self.decode(self.latents(model, sampler, steps, prompts, cfg, seed))

    def latents(
        self,
        model,
        sampler: str,
        steps: int,
        prompts: Sequence[str],
        cfg: float | None = None,
        seed: int = 1,
        callback: Callable | None = None,
        scheduler: str = "simple",
        shape: tuple[int, ...] = (),
    ) -> torch.Tensor:
        """One sample for each prompt, evaluated together. callback: as the host calls it at each step. shape:
        of one latent, if it is not what the model was trained on."""
        empty = torch.zeros(len(prompts), *(shape or demo_nodes.LATENT_SHAPE[self.kind]))
        noise = comfy.sample.prepare_noise(empty, seed)
        positive, negative = self.conditioning(prompts), self.conditioning([""])
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, steps, self.cfg if cfg is None else cfg, sampler, scheduler, positive, negative,
                empty, seed=seed, callback=callback, disable_pbar=True,
            )  # fmt: skip

    def continued(
        self, model, sampler: str, sigmas: np.ndarray, state: torch.Tensor, prompts: Sequence[str],
        cfg: float | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """What sampling gives from a state on. state: as a sampler's callback shows it, at the first of the
        sigmas."""
        empty = torch.zeros(len(prompts), *demo_nodes.LATENT_SHAPE[self.kind])
        positive, negative = self.conditioning(prompts), self.conditioning([""])
        # The models are flow models: from an empty latent, sampling starts with sigma times the noise.
        noise = state.cpu() / float(sigmas[0])
        with torch.inference_mode():
            return comfy.sample.sample_custom(
                model, noise, self.cfg if cfg is None else cfg, comfy.samplers.sampler_object(sampler),
                torch.from_numpy(sigmas), positive, negative, empty, disable_pbar=True,
            )  # fmt: skip

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (count, height, width, 3) in 0..1; the frames of videos one after the other."""
        with torch.inference_mode():
            # The host hands latents out in the scale of its own autoencoders; the codec has the model's.
            latents = self.model.model.latent_format.process_in(latents.float().cpu())
            if self.kind == "video":
                latents = latents.transpose(1, 2).flatten(0, 1)
            return (self._codec.decode(latents).clamp(-1, 1) + 1) / 2

    def conditioning(self, prompts: Sequence[str]) -> list:
        """One conditioning whose rows are the prompts: the host hands each row of the batch its own."""
        if self.takes_labels:
            return self._labels(prompts)
        given = [demo_nodes.OmniCacheDemoText.execute(self.kind, prompt)[0][0] for prompt in prompts]
        pooled = torch.cat([options["pooled_output"] for _, options in given])
        return [[torch.cat([vectors for vectors, _ in given]), {"pooled_output": pooled}]]

    def _labels(self, prompts: Sequence[str]) -> list:
        """The same of a model that knows no words: the number of each prompt's object, of none if empty."""
        objects = list(words.OBJECTS)
        numbers = [objects.index(prompt.split(" ")[0]) if prompt else -1 for prompt in prompts]
        return [[torch.zeros(len(prompts), 1, 1), {"class_label": torch.tensor(numbers)}]]


def _load(name: str, dtype: torch.dtype) -> "comfy.model_patcher.ModelPatcher":
    weights = ROOT / "demo" / "models" / "diffusion_models" / f"omnicache_demo_{name}.safetensors"
    return comfy.sd.load_diffusion_model(str(weights), model_options={"dtype": dtype})


def _load_labelled(name: str) -> "comfy.model_patcher.ModelPatcher":
    """A model in the layout of diffusers, through the pack's own loader."""
    folder_paths.add_model_folder_path("diffusers", str(ROOT / "demo" / "models" / "diffusers"))
    loading = importlib.import_module(f"{PACK}.architectures.loading")
    return loading.load(f"omnicache_demo_{name}", "fp32")


def psnr(pictures: torch.Tensor, reference: torch.Tensor) -> float:
    return measures.psnr(pictures.numpy(), reference.numpy())
