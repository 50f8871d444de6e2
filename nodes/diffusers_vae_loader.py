"""Node: loads a video autoencoder of the diffusers library as a VAE."""

from comfy_api.latest import io

from ..architectures.vae import load, menu
from .sockets import CATEGORY


class OmniCacheDiffusersVAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheDiffusersVAELoader",
            display_name="OmniCache Diffusers VAE Loader",
            category=CATEGORY,
            description="Loads the VAE of a video model that the host has no loader for, CogVideoX's or "
            "Open-Sora's, from a folder in the layout of the diffusers library. It works with the host's VAE "
            "nodes. DiT and Latte use Stable Diffusion's VAE, which the host loads itself.",
            inputs=[
                io.Combo.Input(
                    "model_folder",
                    options=menu(),
                    tooltip="A folder below models/vae, models/diffusers or models/diffusion_models that "
                    "holds a config.json of an autoencoder and its .safetensors file, or a whole pipeline "
                    "with a vae folder in it.",
                ),
            ],
            outputs=[io.Vae.Output(display_name="vae", tooltip="For VAE Decode, VAE Encode and their like.")],
        )

    @classmethod
    def execute(cls, model_folder) -> io.NodeOutput:
        return io.NodeOutput(load(model_folder))
