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
            description="Sets how the error of reusing a cache is avoided by a forecast, or predicted from "
            "the last measured one and taken out. Leave this node away for a forecast of order 2.",
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=["age-aware", "paper", "off", "forecast", "per-band"],
                    default="forecast",
                    tooltip="Forecast: the cache itself is continued through the last full steps. The "
                    "others take out an error measured there. Age-aware: it grows with the age of the "
                    "cache, as calibrated, or in proportion to the age without a profile. Per-band: the "
                    "same with a calibrated factor for each frequency band. Paper: the calibrated factor of "
                    "neighbouring steps, multiplied over steps reused in a row. Off: plain reuse.",
                ),
                io.Combo.Input(
                    "filter",
                    options=["off", "low-high", "low", "high"],
                    default="off",
                    tooltip="Which part of the predicted error is taken out. Off: all of it. Low-high: "
                    "only low frequencies before the switch point and only high ones after it, as in the "
                    "paper. Low, high: one of the two throughout. Mode forecast ignores it.",
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
                    tooltip="Border between low and high frequencies, in cycles per latent pixel (0.5 is "
                    "the finest along an axis). Smaller: low passes less, high passes more. Ignored "
                    "without a filter.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Multiplies the predicted error, or the change that is forecast, 0 to 2: 1 takes "
                    "all of it, 0 none (plain reuse), more than 1 too much.",
                ),
                io.Int.Input(
                    "order",
                    default=2,
                    min=1,
                    max=2,
                    optional=True,
                    tooltip="Of the forecast: 1 continues a line through the last two full steps, 2 a "
                    "parabola through the last three. It keeps as many caches. Other modes ignore it.",
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
    def execute(cls, mode, filter, switch_point, cutoff, strength, order=2) -> io.NodeOutput:
        return io.NodeOutput(Correction(mode, filter, switch_point, cutoff, strength, order))
