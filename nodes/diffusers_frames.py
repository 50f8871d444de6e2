"""Node: the frames of a video latent as a batch, for a VAE of pictures."""

from comfy_api.latest import io

from .sockets import CATEGORY


class OmniCacheFramesToBatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheFramesToBatch",
            display_name="OmniCache Frames To Batch",
            category=CATEGORY,
            description="Makes a batch of pictures out of the frames of a video latent, so that a VAE of "
            "pictures decodes each. Latte's videos need it: its VAE is Stable Diffusion's.",
            inputs=[io.Latent.Input("samples", tooltip="Latent of a video, from a sampler on Latte.")],
            outputs=[
                io.Latent.Output(
                    "frames", display_name="samples", tooltip="For VAE Decode with Stable Diffusion's VAE."
                )
            ],
        )

    @classmethod
    def execute(cls, samples) -> io.NodeOutput:
        video = samples["samples"]
        if video.ndim != 5:
            raise ValueError(
                f"samples: {tuple(video.shape)} is no video, (rows, channels, frames, height, width). "
                "Connect its latent to VAE Decode directly."
            )
        return io.NodeOutput({"samples": video.movedim(2, 1).flatten(0, 1)})
