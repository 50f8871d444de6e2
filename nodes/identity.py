"""Tells models apart: what a profile was measured on, and whether a model is that one."""

import hashlib
from collections.abc import Iterator

import comfy.model_sampling
import numpy as np
import torch

from ..omnicache.families import known_family_of
from ..omnicache.profile import ModelIdentity, Profile


def identity_of(model) -> ModelIdentity:
    """Fingerprints of a ModelPatcher: names and shapes of its weights; a sample of their values with its
    patches."""
    diffusion_model = model.model.diffusion_model
    family = known_family_of(diffusion_model)
    architecture, weights = hashlib.sha256(), hashlib.sha256()
    for name, parameter in sorted(diffusion_model.named_parameters()):
        architecture.update(f"{name}{tuple(parameter.shape)}".encode())
        # Vectors only: LoRAs patch matrices in place while a model is loaded, and those would not repeat. The
        # host keeps the original of what it patches, for the few that patch vectors too.
        if parameter.ndim == 1:
            original = model.backup.get(f"diffusion_model.{name}")
            weights.update(_sample(parameter if original is None else original.weight))
    for key, patches in sorted(model.patches.items()):
        for strength, patch, strength_model, *_ in patches:
            weights.update(f"{key}{strength:.6g}{strength_model:.6g}".encode())
            for tensor in _tensors(patch):
                weights.update(_sample(tensor))
    return ModelIdentity(
        family=family.name if family is not None else type(diffusion_model).__name__,
        architecture=architecture.hexdigest()[:16],
        weights=weights.hexdigest()[:16],
        prediction=prediction_of(model),
    )


def prediction_of(model) -> str:
    """One of profile.PREDICTIONS, as omnicache.noise_axis tells them apart."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.CONST):
        return "flow"
    # The others are made of the host's class for it: EDM of V_PREDICTION, and so on.
    made_of_it = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.X0)
    is_epsilon = isinstance(sampling, comfy.model_sampling.EPS) and not isinstance(sampling, made_of_it)
    return "epsilon" if is_epsilon else "other"


def check_fits(profile: Profile, model) -> str | None:
    """A remark if the profile was measured on other weights of this architecture, None if on these.

    Raises ValueError if it was measured on another architecture.
    """
    measured, have = profile.model, identity_of(model)
    if measured.architecture != have.architecture:
        raise ValueError(
            f"schedule: its profile was calibrated on another model ({measured.family}, architecture "
            f"{measured.architecture}) than the one connected ({have.family}, {have.architecture}). "
            "Calibrate this model, or pick its profile."
        )
    if measured.weights != have.weights:
        return (
            "the profile was calibrated on other weights of this architecture (a fine-tune, a LoRA, or a "
            "coarser type such as fp8)"
        )
    return None


def timesteps_of(model, sigmas: list[float]) -> list[float]:
    """The model's timestep of each sigma, on the usual scale of 0 to 1000."""
    sampling = model.get_model_object("model_sampling")
    timesteps = sampling.timestep(torch.tensor(sigmas)).float()
    longest = float(sampling.timestep(torch.as_tensor(sampling.sigma_max)))
    return (timesteps * (1000.0 if longest <= 1.0 else 1.0)).tolist()


def _sample(tensor: torch.Tensor) -> bytes:
    """Some of a tensor's values, rounded so that the type in which the weights were loaded does not
    matter."""
    values = tensor.detach().flatten()[:8].float().cpu().to(torch.bfloat16).float()
    return np.ascontiguousarray(values.numpy()).tobytes()


def _tensors(patch: object) -> Iterator[torch.Tensor]:
    patch = getattr(patch, "weights", patch)
    if isinstance(patch, torch.Tensor):
        yield patch
    elif isinstance(patch, tuple | list):
        for part in patch:
            yield from _tensors(part)
