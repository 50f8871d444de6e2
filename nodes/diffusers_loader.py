"""Node: loads a transformer of the diffusers library as a MODEL."""

from comfy_api.latest import io

from ..architectures.loading import WEIGHT_DTYPES, load, menu
from .sockets import CATEGORY


class OmniCacheDiffusersLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheDiffusersLoader",
            display_name="OmniCache Diffusers Loader",
            category=CATEGORY,
            description="Loads a transformer that the host has no loader for, from a folder in the layout "
            "of the diffusers library: DiT, Latte, CogVideoX; and Open-Sora 1.2. The model works with every "
            'sampler node. Needs the library: pip install "diffusers>=0.36".',
            inputs=[
                io.Combo.Input(
                    "model_folder",
                    options=menu(),
                    tooltip="A folder below models/diffusion_models or models/diffusers that holds a "
                    "config.json of a transformer and its .safetensors files, or a whole pipeline with a "
                    "transformer folder in it. The noise schedule is read from scheduler_config.json in "
                    "it or beside it, if there is one.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="Number format in which the weights are kept. default: as in the file. fp8 takes "
                    "half of the memory of bf16 and loses some accuracy.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="For OmniCache Auto, OmniCache Model Patch or a sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, model_folder, weight_dtype="default") -> io.NodeOutput:
        return io.NodeOutput(load(model_folder, weight_dtype))
