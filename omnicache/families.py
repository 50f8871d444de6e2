"""Where each model family keeps its transformer blocks. What differs between families is a row here, never
code. docs/new-family.md tells how to add one."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from torch import nn

Joined = Literal["no", "text-image", "image-text"]


@dataclass(frozen=True)
class BlockList:
    """One list of transformer blocks that the host's forward walks through, in order.

    attribute: where the list is on the diffusion model.
    kind: first half of the host's callback key, as in ("double_block", 3). None: the host has no callback for
    these blocks and calls them directly.
    joined: how image and text tokens share the stream: not at all, text tokens first, or image tokens first.
    image, text: of blocks called directly, the names of the arguments that carry the streams; image "" is the
    first positional one, and with a text the block returns (image, text).
    is_bare: the callback gives back the stream itself, not a dictionary.
    left_out: attribute with the numbers of the blocks that the forward leaves out.
    """

    attribute: str
    kind: str | None = "double_block"
    joined: Joined = "no"
    image: str = ""
    text: str = ""
    is_bare: bool = False
    left_out: str = ""


@dataclass(frozen=True)
class SideList:
    """Modules that run beside the blocks and whose output a reuse evaluation does not need.

    answer: what stands for their output then. "input": their first argument. "nothing and input": the pair of
    a zero to add and their first argument.
    """

    attribute: str
    answer: Literal["input", "nothing and input"] = "input"


@dataclass(frozen=True)
class Family:
    """Models that share one forward. model_class is the name of the host's class, matched exactly: a
    subclass may walk its blocks in another way.

    row_axis: axis of the hidden state that holds the rows. writes_between: the forward adds in place into
    what a block returned, before the next one. hides_options: the forward does not hand transformer_options
    on to its blocks.
    """

    name: str
    model_class: str
    lists: tuple[BlockList, ...]
    sides: tuple[SideList, ...] = ()
    row_axis: int = 0
    writes_between: bool = False
    hides_options: bool = False


_WAN = (BlockList("blocks"),)
_FLUX = (BlockList("double_blocks"), BlockList("single_blocks", "single_block", "text-image"))
_REFINED = (BlockList("noise_refiner", None), BlockList("layers", None, "text-image"))

FAMILIES = (
    Family("sd3", "OpenAISignatureMMDITWrapper", (BlockList("joint_blocks"),)),
    Family("flux", "Flux", _FLUX),
    Family(
        "chroma",
        "Chroma",
        (
            BlockList("double_blocks", left_out="skip_mmdit"),
            BlockList("single_blocks", "single_block", "text-image", left_out="skip_dit"),
        ),
    ),
    Family(
        "chroma-radiance",
        "ChromaRadiance",
        (
            BlockList("double_blocks", left_out="skip_mmdit"),
            BlockList("single_blocks", "single_block", "text-image", left_out="skip_dit"),
        ),
    ),
    Family("wan", "WanModel", _WAN),
    Family(
        "wan-vace",
        "VaceWanModel",
        _WAN,
        sides=(SideList("vace_blocks", "nothing and input"),),
        writes_between=True,
    ),
    Family("wan-camera", "CameraWanModel", _WAN),
    Family("wan-s2v", "WanModel_S2V", _WAN, writes_between=True),
    Family("wan-humo", "HumoWanModel", _WAN),
    Family("wan-animate", "AnimateWanModel", _WAN),
    Family(
        "hunyuan-video",
        "HunyuanVideo",
        (BlockList("double_blocks"), BlockList("single_blocks", "single_block", "image-text")),
    ),
    Family("ltxv", "LTXVModel", (BlockList("transformer_blocks"),)),
    Family("cosmos", "GeneralDIT", (BlockList("blocks", None),), row_axis=3, writes_between=True),
    Family("cosmos-predict2", "MiniTrainDIT", (BlockList("blocks", None),)),
    Family("qwen-image", "QwenImageTransformer2DModel", (BlockList("transformer_blocks"),)),
    Family("lumina2", "NextDiT", _REFINED, sides=(SideList("context_refiner"),)),
    Family(
        "omnigen2",
        "OmniGen2Transformer2DModel",
        _REFINED,
        sides=(SideList("context_refiner"), SideList("ref_image_refiner")),
    ),
    Family(
        "hidream",
        "HiDreamImageTransformer2DModel",
        (
            BlockList("double_stream_blocks", None, image="image_tokens", text="text_tokens"),
            BlockList("single_stream_blocks", None, "image-text", image="image_tokens"),
        ),
    ),
    Family(
        "auraflow",
        "MMDiT",
        (BlockList("double_layers"), BlockList("single_layers", "single_block", "text-image")),
    ),
    Family("pixart", "PixArtMS", (BlockList("blocks", None),), hides_options=True),
    Family("mochi", "AsymmDiTJoint", (BlockList("blocks"),)),
    Family("hunyuan-dit", "HunYuanDiT", (BlockList("blocks"),)),
    Family(
        "ace-step",
        "ACEStepTransformer2DModel",
        (BlockList("transformer_blocks", None, image="hidden_states"),),
    ),
    Family("stable-audio", "AudioDiffusionTransformer", (BlockList("transformer.layers"),)),
    Family("hunyuan3d", "Hunyuan3Dv2", _FLUX),
    Family("hunyuan3d-2.1", "HunYuanDiTPlain", (BlockList("blocks", "block", is_bare=True),)),
)

# What the host samples with too, but without a chain of blocks that all change one hidden state.
NOT_TRANSFORMERS = ("UNetModel", "StageB", "StageC")


@dataclass(frozen=True)
class BlockPlace:
    """One block: its callback key, and what its list says of all its blocks."""

    key: tuple[str, int]
    blocks: BlockList


class UnknownModel(ValueError):
    """A model that is not in the table, though it may well be a transformer."""


def family_of(diffusion_model: nn.Module) -> Family:
    """The family of the host's diffusion model.

    Raises UnknownModel for a model that is not in the table, ValueError for one that is no transformer.
    """
    name = type(diffusion_model).__name__
    if name in NOT_TRANSFORMERS:
        known = ", ".join(family.name for family in FAMILIES)
        raise ValueError(
            f"model: {name} is not a diffusion transformer, so there is nothing in it to reuse in this way. "
            f"Connect the sampler to the model directly. Supported: {known}."
        )
    for family in FAMILIES:
        if family.model_class == name:
            return family
    raise UnknownModel(
        f"model: {name} is not one of the transformers this pack knows, so it runs uncached. Known: "
        f"{', '.join(family.name for family in FAMILIES)}."
    )


def places_of(diffusion_model: nn.Module, family: Family) -> tuple[BlockPlace, ...]:
    """Every block of the model in the order in which the forward reaches them."""
    return tuple(
        BlockPlace((blocks.kind or blocks.attribute, index), blocks)
        for blocks in family.lists
        for index, _ in enumerate(modules_of(diffusion_model, blocks.attribute))
        if not (blocks.left_out and index in attrgetter(blocks.left_out)(diffusion_model))
    )


def modules_of(diffusion_model: nn.Module, attribute: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a list with their full names, in order."""
    for name, module in attrgetter(attribute)(diffusion_model).named_children():
        yield f"{attribute}.{name}", module
