"""Stand between the host's call of a model and a transformer's own forward."""

from collections.abc import Mapping
from typing import Any, ClassVar

import comfy.conds
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Layers that the host knows how to keep in main memory or in another number format until they are needed.
_HOST_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm)


class Adapter(nn.Module):
    """A transformer as the host's BaseModel calls it. Made without weights; see `take`."""

    # Whether latents have frames: (rows, channels, frames, height, width).
    is_video: ClassVar[bool] = False

    def __init__(
        self,
        transformer_class: type[nn.Module],
        config: Mapping[str, Any],
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: type | None = None,
    ) -> None:
        """transformer_class: has a from_config that takes its config.json. dtype: of the weights. device: of
        no account, the weights bring their own. operations: the host's layers."""
        super().__init__()
        self.dtype = dtype or torch.float32
        with _WithoutWeights():
            self.transformer = transformer_class.from_config(dict(config)).eval().requires_grad_(False)
        self.config = self.transformer.config
        for module in self.transformer.modules():
            if type(module) in _HOST_LAYERS and operations is not None:
                module.__class__ = getattr(operations, type(module).__name__)

    @property
    def latent_channels(self) -> int:
        return self.config.in_channels

    def take(self, weights: Mapping[str, Tensor], compute_dtype: torch.dtype) -> None:
        """Puts in all weights. Those of layers that the host cannot cast are kept as they are computed
        with."""
        castable = {
            f"{name}.{own}"
            for name, module in self.transformer.named_modules()
            if hasattr(module, "comfy_cast_weights")
            for own, _ in module.named_parameters(recurse=False)
        }
        self.transformer.load_state_dict(
            {key: w.to(self.dtype if key in castable else compute_dtype) for key, w in weights.items()},
            assign=True,
        )
        self.requires_grad_(False)

    def conditions(self, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        """What the forward needs of a conditioning, beside what the host hands on by itself. given: the
        conditioning's entries, and noise (rows, channels, ...) in the latent's shape. Raises ValueError for
        one that does not fit."""
        return {}

    def check_latent(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError for a latent (rows, channels, ...) that the transformer cannot take."""


class DiTAdapter(Adapter):
    """DiTTransformer2DModel: a class label. The other half of its output channels, the learned variance, is
    dropped, as in diffusers' own DiTPipeline: no sampler of the host takes it."""

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor, **_: Any) -> Tensor:
        """x: (rows, channels, height, width). timesteps: (rows,). y: (rows, 1) labels."""
        out = self.transformer(x, timestep=timesteps, class_labels=y.flatten(), return_dict=False)[0]
        return out[:, : x.shape[1]]

    def conditions(self, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        label, classes = given.get("class_label"), self.config.num_embeds_ada_norm
        if label is None:
            raise ValueError(
                "positive, negative: this model takes class labels. Connect an OmniCache Class Label node to "
                "each."
            )
        if label >= classes:
            raise ValueError(f"class label: {label}; this model has the classes 0 to {classes - 1}.")
        # The embedding behind the last class stands for none.
        return {"y": comfy.conds.CONDRegular(torch.tensor([[label if label >= 0 else classes]]))}

    def check_latent(self, shape: tuple[int, ...]) -> None:
        height, width = shape[-2:]
        if height != width or height % self.config.patch_size:
            raise ValueError(
                f"latent_image: {width} x {height} in latent pixels; this model makes square pictures only, "
                f"a multiple of {self.config.patch_size} latent pixels wide. It was trained for "
                f"{self.config.sample_size}."
            )


class _WithoutWeights(TorchFunctionMode):
    """Weights of layers take no memory, nor time to fill; what a model computes for itself is real. Layers
    make their weights with torch.empty."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)
