"""Where each model family keeps its transformer blocks. What differs between families is a row here, never
code. docs/new-family.md tells how to add one."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, get_args

from torch import nn

Joined = Literal["no", "text-image", "image-text"]
BranchKind = Literal["attention", "cross_attention", "mlp"]
Folded = Literal["no", "frames", "tokens"]
BRANCH_KINDS: tuple[BranchKind, ...] = get_args(BranchKind)


@dataclass(frozen=True)
class Branch:
    """One of the things that a block adds to its streams.

    kinds: what it is; two where one last layer serves both. outputs: the modules of the block, as far as it
    has them, that give what is added, before the gate. feeds: where attention is not a module of its own but
    inline in the block, the layers before it. Nobody needs what they and attention give when the outputs are
    known. The first of either is the image's, where text has modules of its own.
    """

    kinds: tuple[BranchKind, ...]
    outputs: tuple[str, ...]
    feeds: tuple[str, ...] = ()


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
    folded: what of a video these blocks see as rows of their own: its frames, so that the stream is (rows *
    frames, tokens, width), or its tokens, (rows * tokens, frames, width).
    branches: what each of these blocks adds to the streams.
    """

    attribute: str
    kind: str | None = "double_block"
    joined: Joined = "no"
    image: str = ""
    text: str = ""
    is_bare: bool = False
    left_out: str = ""
    folded: Folded = "no"
    branches: tuple[Branch, ...] = ()

    @property
    def stream(self) -> str:
        """Name of the image stream in the callback's arguments."""
        return "x" if self.is_bare else "img"


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
    what a block returned, before the next one. writes_into_branches: a block may apply its gates in place.
    hides_options: the forward does not hand transformer_options on to its blocks. alternates: the forward
    takes one block of each list in turn, not one list after the other.
    """

    name: str
    model_class: str
    lists: tuple[BlockList, ...]
    sides: tuple[SideList, ...] = ()
    row_axis: int = 0
    writes_between: bool = False
    writes_into_branches: bool = False
    hides_options: bool = False
    alternates: bool = False


def _branches(attention: str, cross_attention: str = "", mlp: str = "") -> tuple[Branch, ...]:
    """Branches of blocks whose attention is a module: the names of their modules, by kind."""
    named = {"attention": attention, "cross_attention": cross_attention, "mlp": mlp}
    return tuple(Branch((kind,), tuple(names.split())) for kind, names in named.items() if names)


_INLINE_DOUBLE = (
    Branch(("attention",), ("img_attn.proj", "txt_attn.proj"), feeds=("img_attn.qkv", "txt_attn.qkv")),
    Branch(("mlp",), ("img_mlp", "txt_mlp")),
)
_INLINE_SINGLE = (Branch(("attention", "mlp"), ("linear2",), feeds=("linear1",)),)
_INLINE_JOINT = (
    Branch(
        ("attention",),
        ("x_block.attn.proj", "x_block.attn2.proj", "context_block.attn.proj"),
        feeds=("x_block.attn.qkv", "x_block.attn2.qkv", "context_block.attn.qkv"),
    ),
    Branch(("mlp",), ("x_block.mlp", "context_block.mlp")),
)


def _wan(cross_attention: str = "cross_attn") -> tuple[BlockList, ...]:
    return (BlockList("blocks", branches=_branches("self_attn", cross_attention, "ffn")),)


def _flux(joined: Joined = "text-image", **left_out: str) -> tuple[BlockList, ...]:
    return (
        BlockList("double_blocks", branches=_INLINE_DOUBLE, left_out=left_out.get("double", "")),
        BlockList(
            "single_blocks",
            "single_block",
            joined,
            branches=_INLINE_SINGLE,
            left_out=left_out.get("single", ""),
        ),
    )


def _refined(attention: str) -> tuple[BlockList, ...]:
    branches = _branches(attention, mlp="feed_forward")
    return (
        BlockList("noise_refiner", None, branches=branches),
        BlockList("layers", None, "text-image", branches=branches),
    )


_CROSS = _branches("attn", "cross_attn", "mlp")

FAMILIES = (
    Family("sd3", "OpenAISignatureMMDITWrapper", (BlockList("joint_blocks", branches=_INLINE_JOINT),)),
    # References at another timestep are gated in place.
    Family("flux", "Flux", _flux(), writes_into_branches=True),
    Family("chroma", "Chroma", _flux(double="skip_mmdit", single="skip_dit")),
    Family("chroma-radiance", "ChromaRadiance", _flux(double="skip_mmdit", single="skip_dit")),
    Family("wan", "WanModel", _wan()),
    Family(
        "wan-vace",
        "VaceWanModel",
        _wan(),
        sides=(SideList("vace_blocks", "nothing and input"),),
        writes_between=True,
    ),
    Family("wan-camera", "CameraWanModel", _wan()),
    Family("wan-s2v", "WanModel_S2V", _wan(), writes_between=True),
    Family("wan-humo", "HumoWanModel", _wan("cross_attn audio_cross_attn_wrapper.audio_cross_attn")),
    Family("wan-animate", "AnimateWanModel", _wan()),
    Family("hunyuan-video", "HunyuanVideo", _flux("image-text"), writes_into_branches=True),
    Family(
        "ltxv", "LTXVModel", (BlockList("transformer_blocks", branches=_branches("attn1", "attn2", "ff")),)
    ),
    Family(
        "cosmos",
        "GeneralDIT",
        (
            BlockList(
                "blocks", None, branches=_branches("blocks.0.block", "blocks.1.block", "blocks.2.block")
            ),
        ),
        row_axis=3,
        writes_between=True,
    ),
    Family(
        "cosmos-predict2",
        "MiniTrainDIT",
        (BlockList("blocks", None, branches=_branches("self_attn", "cross_attn", "mlp")),),
    ),
    Family(
        "qwen-image",
        "QwenImageTransformer2DModel",
        (BlockList("transformer_blocks", branches=_branches("attn", mlp="img_mlp txt_mlp")),),
    ),
    Family("lumina2", "NextDiT", _refined("attention"), sides=(SideList("context_refiner"),)),
    Family(
        "omnigen2",
        "OmniGen2Transformer2DModel",
        _refined("attn"),
        sides=(SideList("context_refiner"), SideList("ref_image_refiner")),
    ),
    Family(
        "hidream",
        "HiDreamImageTransformer2DModel",
        (
            BlockList(
                "double_stream_blocks",
                None,
                image="image_tokens",
                text="text_tokens",
                branches=_branches("block.attn1", mlp="block.ff_i block.ff_t"),
            ),
            BlockList(
                "single_stream_blocks",
                None,
                "image-text",
                image="image_tokens",
                branches=_branches("block.attn1", mlp="block.ff_i"),
            ),
        ),
    ),
    Family(
        "auraflow",
        "MMDiT",
        (
            BlockList("double_layers", branches=_branches("attn", mlp="mlpC mlpX")),
            BlockList("single_layers", "single_block", "text-image", branches=_branches("attn", mlp="mlp")),
        ),
    ),
    Family("pixart", "PixArtMS", (BlockList("blocks", None, branches=_CROSS),), hides_options=True),
    Family("mochi", "AsymmDiTJoint", (BlockList("blocks", branches=_branches("attn", mlp="mlp_x mlp_y")),)),
    Family("hunyuan-dit", "HunYuanDiT", (BlockList("blocks", branches=_branches("attn1", "attn2", "mlp")),)),
    Family(
        "ace-step",
        "ACEStepTransformer2DModel",
        (
            BlockList(
                "transformer_blocks",
                None,
                image="hidden_states",
                branches=_branches("attn", "cross_attn", "ff"),
            ),
        ),
    ),
    Family(
        "stable-audio",
        "AudioDiffusionTransformer",
        (BlockList("transformer.layers", branches=_branches("self_attn", "cross_attn", "ff")),),
    ),
    Family("hunyuan3d", "Hunyuan3Dv2", _flux()),
    Family(
        "hunyuan3d-2.1",
        "HunYuanDiTPlain",
        (BlockList("blocks", "block", is_bare=True, branches=_branches("attn1", "attn2", "mlp moe")),),
    ),
    Family(
        "dit",
        "DiTAdapter",
        (BlockList("transformer.transformer_blocks", None, branches=_branches("attn1", mlp="ff")),),
        hides_options=True,
    ),
    Family(
        "cogvideox",
        "CogVideoXAdapter",
        (
            BlockList(
                "transformer.transformer_blocks",
                None,
                image="hidden_states",
                text="encoder_hidden_states",
                branches=_branches("attn1", mlp="ff"),
            ),
        ),
        hides_options=True,
    ),
    Family(
        "latte",
        "LatteAdapter",
        (
            BlockList(
                "transformer.transformer_blocks",
                None,
                folded="frames",
                branches=_branches("attn1", "attn2", "ff"),
            ),
            BlockList(
                "transformer.temporal_transformer_blocks",
                None,
                folded="tokens",
                branches=_branches("attn1", mlp="ff"),
            ),
        ),
        hides_options=True,
        alternates=True,
    ),
    Family(
        "open-sora",
        "OpenSoraAdapter",
        (
            BlockList("transformer.spatial_blocks", None, branches=_CROSS),
            BlockList("transformer.temporal_blocks", None, branches=_CROSS),
        ),
        alternates=True,
    ),
)

# What the host samples with too, but without a chain of blocks that all change one hidden state.
NOT_TRANSFORMERS = ("UNetModel", "StageB", "StageC")


@dataclass(frozen=True)
class BlockPlace:
    """One block: its callback key, and what its list says of all its blocks."""

    key: tuple[str, int]
    blocks: BlockList


class UnknownModel(ValueError):
    """A model that is not in the table, though it may well be a transformer, or whose blocks are not its
    own."""


def family_of(diffusion_model: nn.Module) -> Family:
    """The family of the host's diffusion model, by the name of its class; of a class that is not the
    host's, the row that it carries as `omnicache_family` (bench/galaxy.py).

    Raises UnknownModel for a model that is not in the table, ValueError for one that is no transformer.
    """
    own = getattr(diffusion_model, "omnicache_family", None)
    if isinstance(own, Family):
        return own
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


def known_family_of(diffusion_model: nn.Module) -> Family | None:
    """The same, None for a model that has none here."""
    try:
        return family_of(diffusion_model)
    except ValueError:
        return None


def places_of(diffusion_model: nn.Module, family: Family) -> tuple[BlockPlace, ...]:
    """Every block of the model in the order in which the forward reaches them."""
    places = [
        BlockPlace((blocks.kind or blocks.attribute, index), blocks)
        for blocks in family.lists
        for index, _ in enumerate(modules_of(diffusion_model, blocks.attribute))
        if not (blocks.left_out and index in attrgetter(blocks.left_out)(diffusion_model))
    ]
    return tuple(sorted(places, key=lambda place: place.key[1]) if family.alternates else places)


def modules_of(diffusion_model: nn.Module, attribute: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a list with their full names, in order."""
    for name, module in attrgetter(attribute)(diffusion_model).named_children():
        yield f"{attribute}.{name}", module
