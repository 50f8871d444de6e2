"""Node: a class label as CONDITIONING, for models that were trained on labels instead of prompts."""

import torch
from comfy_api.latest import io

from .sockets import CATEGORY

NO_CLASS = -1


class OmniCacheClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheClassLabel",
            display_name="OmniCache Class Label",
            category=CATEGORY,
            description="Tells a class-conditional model such as DiT which class to make, where other models "
            "take a prompt. Use a second one with -1 as the negative.",
            inputs=[
                io.Int.Input(
                    "label",
                    default=207,
                    min=NO_CLASS,
                    max=1_000_000,
                    tooltip="Number of the class: for models of ImageNet 0 to 999 (207 is a golden "
                    "retriever). -1 is no class, for the negative side of guidance.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="For the positive or the negative input of a sampler on a DiT model.",
                )
            ],
        )

    @classmethod
    def execute(cls, label) -> io.NodeOutput:
        # The host wants tokens in every conditioning; such models look at the label only.
        return io.NodeOutput([[torch.zeros(1, 1, 1), {"class_label": label}]])
