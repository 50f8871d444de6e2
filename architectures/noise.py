"""What a transformer was trained to predict and at which noise levels, as scheduler_config.json tells it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from comfy.ldm.modules.diffusionmodules.util import make_beta_schedule

Prediction = Literal["epsilon", "v_prediction", "flow"]

# The host's names of the same curves.
_BETA_CURVES = {
    "linear": "sqrt_linear",
    "scaled_linear": "linear",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
}
# The host's value too: an alpha of exactly 0 would be a sigma without an end.
_LEAST_ALPHA = 4.8973451890853435e-08


@dataclass(frozen=True)
class Noise:
    """snr_shift: CogVideoX divides the signal-to-noise ratio by it. zero_snr: the last step is pure noise.
    flow_shift: of rectified flow only, to which the betas are of no account."""

    prediction: Prediction = "epsilon"
    beta_curve: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    snr_shift: float = 1.0
    zero_snr: bool = False
    flow_shift: float = 1.0

    def overridden_by(self, config: Mapping[str, Any], file: str) -> "Noise":
        """This, where a scheduler's configuration says nothing else. Raises ValueError for what the host's
        samplers cannot do."""
        name = str(config.get("_class_name", ""))
        if name.startswith("FlowMatch"):
            return replace(
                self,
                prediction="flow",
                flow_shift=float(config.get("shift", self.flow_shift)),
                steps=int(config.get("num_train_timesteps", self.steps)),
            )
        noise = replace(
            self,
            prediction=config.get("prediction_type", self.prediction),
            beta_curve=config.get("beta_schedule", self.beta_curve),
            beta_start=float(config.get("beta_start", self.beta_start)),
            beta_end=float(config.get("beta_end", self.beta_end)),
            steps=int(config.get("num_train_timesteps", self.steps)),
            snr_shift=float(config.get("snr_shift_scale", self.snr_shift)),
            zero_snr=bool(config.get("rescale_betas_zero_snr", self.zero_snr)),
        )
        if noise.prediction not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"{file}: prediction_type {noise.prediction!r} is not supported; epsilon and v_prediction "
                "are, and flow matching by a scheduler of a FlowMatch class."
            )
        if noise.beta_curve not in _BETA_CURVES or config.get("trained_betas") is not None:
            raise ValueError(
                f"{file}: beta_schedule {noise.beta_curve!r} or trained_betas are not supported; "
                f"{', '.join(_BETA_CURVES)} are."
            )
        return noise

    @property
    def settings(self) -> dict[str, Any]:
        """As the host's model sampling takes them."""
        if self.prediction == "flow":
            return {"shift": self.flow_shift, "multiplier": self.steps}
        return {
            "beta_schedule": _BETA_CURVES[self.beta_curve],
            "linear_start": self.beta_start,
            "linear_end": self.beta_end,
            "timesteps": self.steps,
            "zsnr": self.zero_snr,
        }

    def sigmas(self) -> torch.Tensor:
        """(steps,) of each timestep, shifted and rescaled as in diffusers' CogVideoXDDIMScheduler."""
        curve, start, end = _BETA_CURVES[self.beta_curve], self.beta_start, self.beta_end
        betas = torch.as_tensor(make_beta_schedule(curve, self.steps, start, end), dtype=torch.float64)
        alphas = torch.cumprod(1 - betas, dim=0)
        alphas = alphas / (self.snr_shift + (1 - self.snr_shift) * alphas)
        if self.zero_snr:
            first, last = alphas[0].sqrt(), alphas[-1].sqrt()
            alphas = ((alphas.sqrt() - last) * first / (first - last)) ** 2
            alphas[-1] = _LEAST_ALPHA
        return ((1 - alphas) / alphas).sqrt()
