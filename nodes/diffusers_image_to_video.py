"""Node: the picture from which CogVideoX makes a video, as part of the conditioning."""

import comfy.model_management
import comfy.utils
import node_helpers
import torch
from comfy_api.latest import io

from .sockets import CATEGORY

_PIXELS, _FRAMES, _CHANNELS = 8, 4, 16  # in a latent of CogVideoX
_FOR_SAMPLER = "The prompt with the picture, for the sampler."


class OmniCacheImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheImageToVideo",
            display_name="OmniCache Image To Video",
            category=CATEGORY,
            description="Gives an image-to-video model of CogVideoX the picture that its video begins with, "
            "and makes the empty latent for it.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt of what is to be seen in the video."),
                io.Conditioning.Input("negative", tooltip="The other side of guidance, often empty."),
                io.Vae.Input("vae", tooltip="CogVideoX's VAE, from OmniCache Diffusers VAE Loader."),
                io.Image.Input("image", tooltip="The first picture of the video; cut to its proportions."),
                io.Int.Input(
                    "width",
                    default=720,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Of the video in pixels. CogVideoX-5b-I2V makes 720 x 480 only.",
                ),
                io.Int.Input(
                    "height", default=480, min=16, max=4096, step=16, tooltip="Of the video in pixels."
                ),
                io.Int.Input(
                    "length",
                    default=49,
                    min=1,
                    max=1025,
                    step=4,
                    tooltip="Pictures in the video. 49 for CogVideoX-5b-I2V; for 1.5 a number that gives an "
                    "even number of latents, such as 85.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("with_image", display_name="positive", tooltip=_FOR_SAMPLER),
                io.Conditioning.Output("negative_with_image", display_name="negative", tooltip=_FOR_SAMPLER),
                io.Latent.Output(display_name="latent", tooltip="Empty, of this size, for the sampler."),
            ],
        )

    @classmethod
    def execute(cls, positive, negative, vae, image, width, height, length) -> io.NodeOutput:
        first = comfy.utils.common_upscale(image[:1].movedim(-1, 1), width, height, "bilinear", "center")
        values = {"concat_latent_image": vae.encode(first.movedim(1, -1))}
        latent = torch.zeros(
            (1, _CHANNELS, (length - 1) // _FRAMES + 1, height // _PIXELS, width // _PIXELS),
            device=comfy.model_management.intermediate_device(),
        )
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values),
            node_helpers.conditioning_set_values(negative, values),
            {"samples": latent},
        )
