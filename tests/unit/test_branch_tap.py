"""One block whose arithmetic a reader can follow: out = x + gate * (attention + mlp), each branch x times a
number."""

from types import SimpleNamespace

import pytest
import torch

from comfyui_omnicache.omnicache.branch_tap import BranchTap, Steering, current_tap
from comfyui_omnicache.omnicache.families import BlockList, Branch, Family, places_of
from comfyui_omnicache.omnicache.plan import EVERYTHING, NOTHING, Parts, Plan
from comfyui_omnicache.omnicache.storage import Kept
from comfyui_omnicache.omnicache.tap import Blocks

ATTENTION, MLP = Branch(("attention",), ("attn",)), Branch(("mlp",), ("mlp",))


class Model:
    """Two such blocks, attention times 2 and MLP times 3."""

    def __init__(self, selections=(EVERYTHING,), is_in_place: bool = False) -> None:
        lists = (BlockList("blocks", branches=(ATTENTION, MLP)),)
        family = Family("plain", "Plain", lists, writes_into_branches=is_in_place)
        two = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
        places = places_of(SimpleNamespace(blocks=two), family)
        self.told: list[int] = []
        self.tap = BranchTap(Blocks(family, places, on_size=self.told.append), selections)
        self.is_in_place = is_in_place
        self.computed: list[str] = []

    def __call__(self, x: torch.Tensor, gate: float) -> torch.Tensor:
        def block(args):
            hidden = args["img"]
            for branch, factor in ((ATTENTION, 2.0), (MLP, 3.0)):
                out = self._branch(branch, hidden, hidden * factor)
                hidden = hidden + (out.mul_(gate) if self.is_in_place else out * gate)
            return {"img": hidden}

        for callback in self.tap.callbacks.values():
            x = callback({"img": x}, {"original_block": block})["img"]
        return x

    def _branch(self, branch: Branch, hidden: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        def original() -> torch.Tensor:
            self.computed.append(branch.kinds[0])
            return out

        tap = current_tap()
        return tap.at_output(branch, hidden, True, original) if tap is not None else original()


def number(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1), value)


def captured(model: Model, x: float, gate: float) -> list[torch.Tensor]:
    _, kept = model.tap.capture(lambda: model(number(x), gate), Kept.as_is)
    model.computed.clear()
    return [each.whole().clone() for each in kept]


@pytest.mark.parametrize("is_in_place", [False, True])
def test_cached_branches_are_gated_anew(is_in_place):
    model = Model(is_in_place=is_in_place)
    cache = captured(model, 1.0, gate=1.0)
    # 1 + 2 = 3, 3 + 9 = 12, 12 + 24 = 36, 36 + 108 = 144
    assert [tensor.item() for tensor in cache] == [2.0, 9.0, 24.0, 108.0]
    for _ in range(2):  # twice: replaying must not wear the cache
        out = model.tap.replay(lambda: model(number(5.0), 0.5), cache)
        assert out.item() == 5.0 + 0.5 * (2 + 9 + 24 + 108)
    assert model.computed == []


def test_only_the_named_parts_are_reused():
    parts = Parts.parse("attention, mlp 1")
    model = Model([parts])
    cache = captured(model, 1.0, gate=1.0)
    assert [tensor.item() for tensor in cache] == [2.0, 24.0, 108.0]  # the first block's MLP is never reused
    out = model.tap.replay(lambda: model(number(5.0), 1.0), cache, parts)
    assert out.item() == (5 + 2) * 4 + 24 + 108
    assert model.computed == ["mlp"]


def test_a_refresh_keeps_what_it_computes_and_only_that():
    attention = Parts.parse("attention")
    model = Model([EVERYTHING])
    cache = captured(model, 1.0, gate=1.0)
    out, renewed = model.tap.refresh(lambda: model(number(5.0), 1.0), cache, attention, Kept.as_is)
    # 5 + 2 = 7, 7 + 21 = 28, 28 + 24 = 52, 52 + 156 = 208
    assert out.item() == 208 and model.computed == ["mlp", "mlp"]
    assert [kept and kept.whole().item() for kept in renewed] == [None, 21.0, None, 156.0]


def steered(model: Model, cache: list[torch.Tensor], reuses: bool):
    """What a steered forward at x = 5 gave and kept, what it asked with and what it showed."""
    asked, shown = [], []

    def asks(signal: torch.Tensor) -> bool:
        asked.append(signal.item())
        return reuses

    steering = Steering(asks, lambda output: shown.append(output.item()))
    out, kept = model.tap.steer(lambda: model(number(5.0), 1.0), cache, Kept.as_is, steering)
    return out.item(), kept and [each.whole().item() for each in kept], asked, shown


def test_a_steered_forward_is_a_replay_if_it_is_told_so_at_the_first_attention():
    model = Model()
    cache = captured(model, 1.0, gate=1.0)
    assert steered(model, cache, True) == (5.0 + 2 + 9 + 24 + 108, None, [5.0], [])
    assert model.computed == []


def test_a_steered_forward_is_captured_if_not_and_shows_the_middle_attention():
    model = Model()
    cache = captured(model, 1.0, gate=1.0)
    # 5 + 10 = 15, 15 + 45 = 60, 60 + 120 = 180, 180 + 540 = 720: block 1 of 2 is the middle one.
    assert steered(model, cache, False) == (720.0, [10.0, 45.0, 120.0, 540.0], [5.0], [120.0])
    assert len(model.computed) == 4
    assert model.tap.replay(lambda: model(number(5.0), 1.0), cache).item() == 148.0  # it steers no more


def test_a_pass_that_is_neither_captured_nor_replayed_runs_as_it_is():
    model = Model()
    assert model(number(1.0), 1.0).item() == 144.0
    assert current_tap() is None


def test_the_size_of_the_cache_is_told_once_with_all_blocks_counted():
    model = Model()
    captured(model, 1.0, gate=1.0)
    captured(model, 1.0, gate=1.0)
    assert model.told == [4 * 4]  # four branches of one float32


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("all", [(0, "attention"), (99, "mlp"), (5, "cross_attention")], []),
        ("attention", [(0, "attention"), (99, "attention")], [(0, "mlp"), (0, "cross_attention")]),
        ("cross-attention 3, mlp 4-6", [(3, "cross_attention"), (4, "mlp"), (6, "mlp")],
         [(2, "cross_attention"), (4, "cross_attention"), (7, "mlp"), (5, "attention")]),
    ],
)  # fmt: skip
def test_parts_are_read_from_text(text, has, has_not):
    parts = Parts.parse(text)
    assert all(parts.has(position, (kind,)) for position, kind in has)
    assert not any(parts.has(position, (kind,)) for position, kind in has_not)


@pytest.mark.parametrize("text", ["attn", "mlp 4 -", "mlp, mlp 3", "attention 6-4", "mlp 1 2"])
def test_parts_that_make_no_sense_are_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match="parts: .* Write 'all', or"):
        Parts.parse(text)


def test_a_plan_knows_what_each_step_reuses():
    plan = Plan.of((False, True), Parts.parse("mlp"))
    assert plan.reused == (False, True)
    assert plan.at(0) == NOTHING and plan.at(1) == Parts.parse("mlp") == next(iter(plan.selections))
    assert plan.at(7) == NOTHING  # beyond the schedule
