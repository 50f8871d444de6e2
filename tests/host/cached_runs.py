"""Cached sampling runs for the tests, and their oracle: the same plan with every row of the model's batch
evaluated by itself, so that no two lanes can mix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.sample
import torch

from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget, Parts
from comfyui_omnicache.omnicache.schedule import Schedule
from tiny_models import MODELS, conditioning

STEPS = 12


def reusing(model, ratio: float = 0.5, granularity: str = "stack", parts: str = "all", **correction):
    schedule = Schedule(Budget("reuse ratio", ratio), cost="even", parts=Parts.parse(parts))
    return OmniCacheModelPatch.execute(model, schedule, Correction(**correction), granularity).args[0]


def run(model, family, positive=None, negative=None, steps=STEPS, latent=None, **options) -> torch.Tensor:
    """A sampling run on a latent that is not empty, for the parts of runs."""
    latent = torch.full((1, *MODELS[family].shape), 0.1) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, 3)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, options.pop("cfg", 3.0), options.pop("sampler", "euler"), "simple",
            positive or conditioning(family, 1), negative or conditioning(family, 2), latent, seed=3,
            disable_pbar=True, **options,
        )  # fmt: skip


@contextmanager
def row_by_row(model) -> Iterator[None]:
    """Makes the host find too little memory to evaluate two rows together."""
    needed, model.model.memory_required = model.model.memory_required, lambda *args, **kwargs: 1e30
    try:
        yield
    finally:
        model.model.memory_required = needed


def assert_lanes_do_not_mix(model, family, positive=None, negative=None, mode="age-aware", **options) -> None:
    """Samples the reusing model as the host batches it, and row by row; and checks that reuse happened."""
    assert_same_row_by_row(model, lambda target: run(target, family, positive, negative, **options), mode)


def assert_same_row_by_row(model, sample: Callable[..., torch.Tensor], mode: str = "age-aware") -> None:
    """sample: gives the latents of a sampling run of the model that it is given."""
    patch = reusing(model, mode=mode)
    plain, together = sample(model), sample(patch)
    with row_by_row(patch):
        apart = sample(patch)
    assert (together - apart).norm() <= 1e-3 * apart.norm()
    assert not torch.equal(together, plain)
    assert torch.equal(sample(model), plain)
