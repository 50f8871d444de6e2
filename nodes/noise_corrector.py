"""Node: decides how the error of reuse is corrected."""

from comfy_api.latest import io

from ..omnicache.correction import Correction
from .sockets import CATEGORY, CorrectionSocket


class NoiseCorrector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NoiseCorrector",
            display_name="Noise Corrector",
            category=CATEGORY,
            description="Optional. A reused step is a little wrong; this sets how that is corrected. "
            "Without this node what is reused is continued through the last three computed steps (mode "
            "forecast, order 2), and what it did wrong is put right at the next computed step (repay). "
            "Samplers that add noise have order 1, and repay with flow models only.",
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=["age-aware", "paper", "off", "forecast", "per-band"],
                    default="forecast",
                    tooltip="Forecast: what is reused is continued through the last computed steps. The "
                    "other modes measure at computed steps how wrong reuse would be, and take it out at "
                    "reused ones. Age-aware: more of it the older the cache is, as the profile says, or in "
                    "proportion without one. Per-band: the same for coarse and fine detail apart. Paper: as "
                    "in the OmniCache paper; needs a profile. Off: plain reuse.",
                ),
                io.Combo.Input(
                    "filter",
                    options=["off", "low-high", "low", "high"],
                    default="off",
                    tooltip="Which part of the error is taken out. Off: all of it. Low: the coarse "
                    "part (low frequencies). High: the fine detail. Low-high: the coarse part before the "
                    "switch point, the fine detail after it, as in the paper. With mode forecast it applies "
                    "to repay.",
                ),
                io.Float.Input(
                    "switch_point",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where low-high changes over, as a share of the model's noise range: 0 is the "
                    "start of sampling, 1 the end (like start_percent elsewhere). Other filters ignore it.",
                ),
                io.Float.Input(
                    "cutoff",
                    default=0.25,
                    min=0.01,
                    max=0.7,
                    step=0.01,
                    tooltip="Border between coarse and fine, in cycles per latent pixel (0.5 is the finest "
                    "along an axis). Smaller: less counts as coarse. Ignored without a filter.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much is corrected, 0 to 2. 1: as predicted. 0: nothing (plain reuse). More "
                    "than 1: too much.",
                ),
                io.Int.Input(
                    "order",
                    default=2,
                    min=1,
                    max=2,
                    optional=True,
                    tooltip="Of the forecast: 1 continues a line through the last two computed steps, 2 a "
                    "parabola through the last three, which takes a third more memory. Other modes "
                    "ignore it.",
                ),
                io.Float.Input(
                    "repay",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    optional=True,
                    tooltip="How much of what reused steps did wrong the next computed step puts right, "
                    "0 to 1.5. 1: all that is known. 0: nothing. Only with mode forecast.",
                ),
            ],
            outputs=[
                CorrectionSocket.Output(
                    "correction",
                    display_name="correction",
                    tooltip="How the error of reuse is taken out. Goes to OmniCache Model Patch.",
                ),
            ],
        )

    @classmethod
    def execute(cls, mode, filter, switch_point, cutoff, strength, order=2, repay=1.0) -> io.NodeOutput:
        return io.NodeOutput(Correction(mode, filter, switch_point, cutoff, strength, order, repay))
