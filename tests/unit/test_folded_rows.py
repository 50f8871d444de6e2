"""Blocks that see the frames of a video, or its tokens, as rows of their own, one after the other in turn."""

from types import SimpleNamespace

import torch
from torch import nn

from comfyui_omnicache.omnicache.families import BlockList, Family, places_of
from comfyui_omnicache.omnicache.lane import JoinedCaches, split_captured
from comfyui_omnicache.omnicache.storage import Kept
from comfyui_omnicache.omnicache.tap import Blocks, StackTap

FAMILY = Family(
    "video",
    "Video",
    (BlockList("inside", None, folded="frames"), BlockList("between", None, folded="tokens")),
    alternates=True,
)
MODEL = SimpleNamespace(
    inside=nn.Sequential(nn.Identity(), nn.Identity()), between=nn.Sequential(nn.Identity(), nn.Identity())
)
FRAMES, TOKENS = 3, 4


def of_places(rows: int) -> torch.Tensor:
    """(rows, frames, tokens, 1): 20 for each token and 2 for each frame, which is what two blocks of each
    list add."""
    added = 20.0 * torch.arange(TOKENS) + 2.0 * torch.arange(FRAMES)[:, None]
    return added[None, :, :, None].expand(rows, -1, -1, -1)


def forward(tap: StackTap, start: torch.Tensor) -> torch.Tensor:
    """What a model of two blocks of each list does with (rows, frames, tokens, 1). A block inside the frames
    adds 10 for each token, one between them adds 1 for each frame."""
    tap.rows = rows = start.shape[0]
    stream = start.flatten(0, 1)

    def inside(args):
        return {"img": args["img"] + 10.0 * torch.arange(TOKENS)[:, None]}

    def between(args):
        return {"img": args["img"] + torch.arange(FRAMES)[:, None]}

    for index in range(2):
        stream = tap.callbacks["inside", index]({"img": stream}, {"original_block": inside})["img"]
        stream = stream.unflatten(0, (rows, FRAMES)).transpose(1, 2).flatten(0, 1)
        stream = tap.callbacks["between", index]({"img": stream}, {"original_block": between})["img"]
        stream = stream.unflatten(0, (rows, TOKENS)).transpose(1, 2).flatten(0, 1)
    return stream.unflatten(0, (rows, FRAMES))


def new_tap() -> StackTap:
    return StackTap(Blocks(FAMILY, places_of(MODEL, FAMILY)))


def test_lists_that_alternate_are_walked_through_in_turn():
    keys = [place.key for place in places_of(MODEL, FAMILY)]
    assert keys == [("inside", 0), ("between", 0), ("inside", 1), ("between", 1)]


def test_what_folded_blocks_add_is_kept_row_by_row():
    tap, start = new_tap(), torch.zeros(2, FRAMES, TOKENS, 1)
    start[1] = 1000.0
    out, (residual,) = tap.capture(lambda: forward(tap, start), Kept.as_is)
    assert torch.equal(out, start + of_places(2))
    assert residual.rows == 2 and torch.equal(residual.whole(), of_places(2))


def test_the_rows_of_one_lane_are_replayed_alone():
    tap, start = new_tap(), torch.zeros(2, FRAMES, TOKENS, 1)
    added = of_places(2).clone()
    added[1] += 7.0
    _, second = split_captured([Kept.as_is(added)], 2)
    out = tap.replay(lambda: forward(tap, start[:1] + 100.0), JoinedCaches([second]))
    assert torch.equal(out, of_places(1) + 107.0)
