"""The transformers and autoencoders that can be loaded. What differs between them is a row here, and an
adapter where they are called in another way."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from .adapter import Adapter, CogVideoXAdapter, DiTAdapter, LatteAdapter
from .codec import Codec
from .noise import Noise
from .open_sora import OpenSoraAdapter, OpenSoraCodec, rectified_flow

Config = Mapping[str, Any]  # of a transformer: its config.json

LIBRARY = "diffusers>=0.36"


@dataclass(frozen=True)
class Architecture:
    """One class of transformers.

    class_name: what a config.json says, in _class_name or in architectures. module: where the class is, in
    diffusers, or in this folder with a dot in front; it is made by its from_config. adapter: how the host
    calls it. noise, latent_scale: where the files beside the transformer do not tell; the scale is what the
    VAE's latents are multiplied by.
    """

    class_name: str
    module: str
    adapter: type[Adapter]
    noise: Callable[[Config], Noise]
    latent_scale: Callable[[Config], float]

    def transformer_class(self) -> type[nn.Module]:
        """Raises ValueError without the library."""
        return imported(self.module, self.class_name)


def _sd_scale(config: Config) -> float:
    """Of Stable Diffusion's VAE; latents of other VAEs as they are."""
    return 0.18215 if config.get("in_channels") == 4 else 1.0


def _cogvideox_noise(config: Config) -> Noise:
    """2b has positions by sum and a shift, 5b and 1.5 have neither."""
    shift = 1.0 if config.get("use_rotary_positional_embeddings") else 3.0
    return Noise("v_prediction", "scaled_linear", 0.00085, 0.012, snr_shift=shift, zero_snr=True)


def _cogvideox_scale(config: Config) -> float:
    return 0.7 if config.get("use_rotary_positional_embeddings") else 1.15258426


ARCHITECTURES = (
    Architecture(
        "DiTTransformer2DModel",
        "diffusers.models.transformers.dit_transformer_2d",
        DiTAdapter,
        lambda config: Noise(),
        _sd_scale,
    ),
    Architecture(
        "LatteTransformer3DModel",
        "diffusers.models.transformers.latte_transformer_3d",
        LatteAdapter,
        lambda config: Noise(),
        _sd_scale,
    ),
    Architecture(
        "CogVideoXTransformer3DModel",
        "diffusers.models.transformers.cogvideox_transformer_3d",
        CogVideoXAdapter,
        _cogvideox_noise,
        _cogvideox_scale,
    ),
    Architecture("STDiT3", ".stdit3", OpenSoraAdapter, rectified_flow, lambda config: 1.0),
)


@dataclass(frozen=True)
class Autoencoder:
    """One class of video autoencoders. class_name, module: as of an Architecture. codec: how it is called."""

    class_name: str
    module: str
    codec: type[Codec]

    def autoencoder_class(self) -> type[nn.Module]:
        """Raises ValueError without the library."""
        return imported(self.module, self.class_name)


AUTOENCODERS = (
    Autoencoder("AutoencoderKLCogVideoX", "diffusers.models.autoencoders.autoencoder_kl_cogvideox", Codec),
    Autoencoder("VideoAutoencoderPipeline", ".open_sora_vae", OpenSoraCodec),
)


Row = TypeVar("Row", Architecture, Autoencoder)


def architecture_of(class_name: str, file: str) -> Architecture:
    """The row of a class. file: where the name is from. Raises ValueError for one that has none."""
    return _row(ARCHITECTURES, class_name, file)


def autoencoder_of(class_name: str, file: str) -> Autoencoder:
    """The same of an autoencoder."""
    return _row(AUTOENCODERS, class_name, file)


def _row(rows: tuple[Row, ...], class_name: str, file: str) -> Row:
    for row in rows:
        if row.class_name == class_name:
            return row
    known = ", ".join(row.class_name for row in rows)
    raise ValueError(f"model_folder: {file} is of the class {class_name!r}, which is not one of {known}.")


def imported(module: str, class_name: str) -> type:
    """A class, of which only its own module is imported. Raises ValueError without the library."""
    try:
        return getattr(importlib.import_module(module, __package__), class_name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "diffusers":
            reason = "the diffusers library is not installed"
        else:
            reason = f"the diffusers library lacks {class_name} or does not import ({error})"
        raise ValueError(
            f'model_folder: {reason}. Run  pip install "{LIBRARY}"  with the Python that starts ComfyUI, '
            "then restart ComfyUI."
        ) from error
