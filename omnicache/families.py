"""Where each model family keeps its transformer blocks. What differs between families is a row here, never
code."""

from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class BlockList:
    """One list of transformer blocks that the host's forward walks through, in order.

    attribute: name of the list on the diffusion model.
    kind: first half of the host's callback key, as in ("double_block", 3).
    joined: how image and text tokens share the stream: not at all, text tokens first, or image tokens first.
    """

    attribute: str
    kind: str
    joined: Literal["no", "text-image", "image-text"] = "no"


@dataclass(frozen=True)
class Family:
    """Models that share one forward. model_class is the name of the host's class, matched exactly: a
    subclass may walk its blocks in another way."""

    name: str
    model_class: str
    lists: tuple[BlockList, ...]


FAMILIES = (
    Family("sd3", "OpenAISignatureMMDITWrapper", (BlockList("joint_blocks", "double_block"),)),
    Family("wan", "WanModel", (BlockList("blocks", "double_block"),)),
    Family(
        "flux",
        "Flux",
        (
            BlockList("double_blocks", "double_block"),
            BlockList("single_blocks", "single_block", joined="text-image"),
        ),
    ),
)


@dataclass(frozen=True)
class BlockPlace:
    """One block as the host's callbacks name it, and how its stream holds the image tokens."""

    kind: str
    index: int
    joined: str


def family_of(diffusion_model: nn.Module) -> Family:
    """The family of the host's diffusion model. Raises ValueError for a model that is not in the table."""
    name = type(diffusion_model).__name__
    for family in FAMILIES:
        if family.model_class == name:
            return family
    known = ", ".join(f"{family.name} ({family.model_class})" for family in FAMILIES)
    raise ValueError(
        f"model: {name} is not a diffusion transformer this pack knows. Supported: {known}. Connect the "
        "sampler to the model directly to run it uncached."
    )


def places_of(diffusion_model: nn.Module, family: Family) -> tuple[BlockPlace, ...]:
    """Every block of the model in the order in which the forward reaches them."""
    return tuple(
        BlockPlace(blocks.kind, index, blocks.joined)
        for blocks in family.lists
        for index in range(len(getattr(diffusion_model, blocks.attribute)))
    )
