"""The demo's nodes. The demo models read eight-colour, two-dozen-object prompts; everything else is stock."""

import comfy.latent_formats
import torch
from comfy_api.latest import ComfyExtension, io
from einops import rearrange

from .codec import Codec
from .words import VOCABULARY, parse, tokens

CATEGORY = "OmniCache/demo"
MODELS = ["image", "video"]
LATENT_SHAPE = {"image": (16, 16, 16), "video": (16, 8, 12, 12)}
LATENT_FORMAT = {
    "image": comfy.latent_formats.SD3,
    "video": comfy.latent_formats.Wan21,
    "image_dit": comfy.latent_formats.LatentFormat,  # as they come
}


class OmniCacheDemoText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        examples = "; ".join(", ".join(slot) for slot in VOCABULARY["video"])
        return io.Schema(
            node_id="OmniCacheDemoText",
            display_name="OmniCache Demo Text",
            category=CATEGORY,
            description="Prompt for the demo models. The image model knows an object and a colour, the "
            f"video model an object, a motion and a colour: {examples}.",
            inputs=[
                io.Combo.Input("model", options=MODELS, tooltip="Which demo model the prompt is for."),
                io.String.Input(
                    "prompt",
                    default="fox on blue",
                    tooltip="'fox on blue' for the image model, 'fox spinning on blue' for the video "
                    "model. Empty: the negative prompt.",
                ),
            ],
            outputs=[io.Conditioning.Output("conditioning", tooltip="Goes to a sampler.")],
        )

    @classmethod
    def execute(cls, model: str, prompt: str) -> io.NodeOutput:
        vectors = torch.from_numpy(tokens(parse(prompt, model), model))[None]  # (1, words, width)
        return io.NodeOutput([[vectors, {"pooled_output": vectors.sum(1)}]])


class OmniCacheDemoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheDemoLatent",
            display_name="OmniCache Demo Latent",
            category=CATEGORY,
            description="Empty latent of the size a demo model was trained on.",
            inputs=[
                io.Combo.Input("model", options=MODELS, tooltip="Which demo model the latent is for."),
                io.Int.Input("batch_size", default=8, min=1, max=64, tooltip="Pictures or videos at once."),
            ],
            outputs=[io.Latent.Output("latent", tooltip="Goes to a sampler.")],
        )

    @classmethod
    def execute(cls, model: str, batch_size: int) -> io.NodeOutput:
        return io.NodeOutput({"samples": torch.zeros(batch_size, *LATENT_SHAPE[model])})


class OmniCacheDemoDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheDemoDecode",
            display_name="OmniCache Demo Decode",
            category=CATEGORY,
            description="Turns a demo model's latents into pictures.",
            inputs=[
                io.Latent.Input("samples", tooltip="From a sampler."),
                io.Combo.Input(
                    "model", options=list(LATENT_FORMAT), tooltip="Which demo model the latents are of."
                ),
                io.Combo.Input(
                    "layout",
                    options=["separate", "sheet"],
                    default="separate",
                    tooltip="Separate: each picture, or each frame in order, by itself. Sheet: one picture "
                    "of all, a video as one row of frames.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="64 x 64 pictures, 48 x 48 frames, or a sheet of them.")
            ],
        )

    @classmethod
    def execute(cls, samples: dict, model: str, layout: str) -> io.NodeOutput:
        latents = LATENT_FORMAT[model]().process_in(samples["samples"].float().cpu())
        if model == "video":
            latents = latents.transpose(1, 2)  # (batch, frames, 16, h, w)
        pictures = (Codec.load().decode(latents) + 1) / 2
        if layout == "separate":
            return io.NodeOutput(pictures.reshape(-1, *pictures.shape[-3:]))
        if model != "video":
            columns = next(count for count in (8, 6, 5, 4, 3, 2, 1) if len(pictures) % count == 0)
            pictures = rearrange(pictures, "(rows columns) h w c -> rows columns h w c", columns=columns)
        return io.NodeOutput(rearrange(pictures, "rows columns h w c -> 1 (rows h) (columns w) c"))


class DemoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [OmniCacheDemoText, OmniCacheDemoLatent, OmniCacheDemoDecode]
