"""Keeps the outputs of attention, cross-attention and MLP of each block apart, before their gates, so that
the block gates them anew with the current timestep (paper, Eq. 2), and a plan may reuse only some of them.

The blocks themselves run at a reuse; inside them, the modules that a family's row names answer with what was
captured. The bridge puts a patch on each of them that asks here.
"""

from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from .families import Branch, SideList
from .plan import EVERYTHING, NOTHING, Parts
from .storage import Kept
from .tap import Blocks, BlockTap, Callback, Captured, Forward, Keep, outside_compiled_graphs

# The tap of the sampling run whose block is being computed, as long as it captures or replays.
_CURRENT: ContextVar["BranchTap | None"] = ContextVar("omnicache_branch_tap", default=None)


def current_tap() -> "BranchTap | None":
    return _CURRENT.get()


class Steering(NamedTuple):
    """What decides in the middle of a forward whether it is a replay. asks: with what comes into the first
    block's attention, once. shows: with what the middle block's attention gives, if it is computed. Both
    (rows, ..., width), of the image where there is text too."""

    asks: Callable[[Tensor], bool]
    shows: Callable[[Tensor], None]


class _Answer(NamedTuple):
    """How one module answers: with tensors number `start` and following, among other things."""

    start: int
    form: tuple[bool, ...] | None  # what of a tuple is a tensor; None: the answer is a tensor

    @property
    def tensors(self) -> int:
        return 1 if self.form is None else sum(self.form)


class BranchTap(BlockTap):
    """Every branch of every block by itself, as far as any of the selections names it.

    What is captured is in the order of the calls, which is the same in every forward of a run.
    """

    holds_additions: ClassVar[bool] = False

    def __init__(self, blocks: Blocks, selections: Collection[Parts] = (EVERYTHING,)) -> None:
        """selections: what the steps of the plan reuse."""
        super().__init__(blocks)
        self._selections = tuple(selections)
        # Called from inside the blocks, which may be compiled.
        self.at_output = outside_compiled_graphs(self._at_output)
        self.at_feed = outside_compiled_graphs(self._at_feed)
        self._answers: list[_Answer] = []
        self._is_running = False
        self._position = 0  # of the block that is being computed
        self._calls = 0  # of modules that answered in this forward
        self._reused: Parts = NOTHING
        self._cached: Sequence[Tensor] = ()
        self._keep: Keep | None = None  # while what is computed is captured
        self._captured: list[Kept | None] = []  # None for what was taken from the cache
        self._steering: Steering | None = None
        self._is_asked = False

    def capture(self, forward: Forward, keep: Keep, late: bool = False) -> tuple[Tensor, Captured | None]:
        out, captured = self._keeping(forward, keep)
        return out, tuple(captured) or None

    def refresh(
        self, forward: Forward, cached: Sequence[Tensor], parts: Parts, keep: Keep
    ) -> tuple[Tensor, tuple[Kept | None, ...]]:
        """Replays some parts and keeps what the others give. Returns the output and, in the order of what is
        cached, what is to stand for it from now on; None where it was replayed."""
        self._cached, self._reused = cached, parts
        try:
            out, renewed = self._keeping(forward, keep)
            return out, tuple(renewed)
        finally:
            self._cached, self._reused = (), NOTHING

    def steer(
        self, forward: Forward, cached: Sequence[Tensor], keep: Keep, steering: Steering
    ) -> tuple[Tensor, Captured | None]:
        """A forward that becomes a replay if, where it enters the first block, it is told to; else it is
        captured. Returns its output and what was captured: None if it was a replay, or the blocks were not
        reached."""
        self._cached, self._steering, self._is_asked = cached, steering, False
        try:
            return self.capture(forward, keep)
        finally:
            self._cached, self._steering, self._reused = (), None, NOTHING

    def replay(
        self,
        forward: Forward,
        cached: Sequence[Tensor],
        parts: Parts = EVERYTHING,
        writes_between: bool = False,
    ) -> Tensor:
        self._cached, self._reused = cached, parts
        try:
            return self._run(forward)
        finally:
            self._cached, self._reused = (), NOTHING

    def _at_output(self, branch: Branch, first: Any, is_leading: bool, original: Callable[[], Any]) -> Any:
        """Answers for a module that ends a branch: a tensor, or a tuple of such (image and text).

        first: what comes into it. is_leading: it is the first of the branch's modules in the family's row,
        the image's."""
        if not self._captures(self._position, branch):
            return original()
        if is_leading and not branch.feeds:
            self._ask(branch, first)
        out = self._answer(self._reused.has(self._position, branch.kinds), original)
        if is_leading and self._steering is not None and self._keep is not None:
            self._show(branch, out)
        return out

    def _at_feed(
        self, branch: Branch, first: Tensor, is_leading: bool, width: int, original: Callable[[], Any]
    ) -> Any:
        """Answers for a layer before inline attention, which would give (..., width). The rest as at an
        output."""
        if is_leading:
            self._ask(branch, first)
        if not self._reused.has(self._position, branch.kinds):
            return original()
        return first.new_zeros(()).expand(*first.shape[:-1], width)

    def skips_attention(self) -> bool:
        """Whether nobody needs what attention inside the current block gives."""
        return any(
            branch.feeds and self._reused.has(self._position, branch.kinds)
            for branch in self._places[self._position].blocks.branches
        )

    def _ask(self, branch: Branch, first: Tensor) -> None:
        """Lets the steering decide, if this is where it does."""
        if self._steering is None or self._is_asked or self._position or "attention" not in branch.kinds:
            return
        self._is_asked = True
        if self._steering.asks(self._with_rows(first)):
            # What ran before the first block was kept for nothing.
            self._reused, self._keep, self._captured = EVERYTHING, None, []

    def _show(self, branch: Branch, out: Any) -> None:
        if self._position == len(self._places) // 2 and "attention" in branch.kinds:
            image = out[0] if isinstance(out, tuple | list) else out
            self._steering.shows(self._with_rows(image))

    def _keeping(self, forward: Forward, keep: Keep) -> tuple[Tensor, list[Kept | None]]:
        self._keep, self._captured = keep, []
        try:
            return self._run(forward), self._captured
        finally:
            self._keep, self._captured = None, []

    def _run(self, forward: Forward) -> Tensor:
        self._is_running, self._calls = True, 0
        try:
            return forward()
        finally:
            self._is_running = False

    def _block_callback(self, position: int, chained: Callback | None) -> Callback:
        def at_block(args: dict[str, Any], extra: dict[str, Any]) -> Any:
            self._position = position
            before = len(self._captured)
            token = _CURRENT.set(self if self._is_running else None)
            try:
                return chained(args, extra) if chained is not None else extra["original_block"](args)
            finally:
                _CURRENT.reset(token)
                if self._on_size is not None and len(self._captured) > before:
                    self._tell_size(self._estimated_size(self._captured[before:]))

        return at_block

    def _side_callback(self, side: SideList) -> Callable[[Tensor, Callable[[], Any]], Any]:
        def at_side(first: Tensor, original: Callable[[], Any]) -> Any:
            if not self._is_running or self._selections != (EVERYTHING,):
                return original()
            return self._answer(self._reused == EVERYTHING, original)

        return at_side

    def _answer(self, is_reused: bool, original: Callable[[], Any]) -> Any:
        """Computes an output and keeps it if this is captured, or takes it from what was kept."""
        number, self._calls = self._calls, self._calls + 1
        if is_reused:
            answer = self._answers[number]
            if self._keep is not None:
                self._captured += [None] * answer.tensors
            return self._from_cache(answer)
        out = original()
        parts = out if isinstance(out, tuple | list) else (out,)
        if number == len(self._answers):
            start = self._answers[-1].start + self._answers[-1].tensors if self._answers else 0
            form = tuple(isinstance(part, Tensor) for part in parts) if parts is out else None
            self._answers.append(_Answer(start, form))
        if self._keep is not None:
            tensors = [part for part in parts if isinstance(part, Tensor)]
            self._captured += [self._keep(self._safe(self._with_rows(tensor))) for tensor in tensors]
        return out

    def _from_cache(self, answer: _Answer) -> Any:
        tensors = (
            self._safe(self._as_in_block(self._cached[answer.start + number]))
            for number in range(answer.tensors)
        )
        if answer.form is None:
            return next(tensors)
        return tuple(next(tensors) if is_tensor else None for is_tensor in answer.form)

    def _with_rows(self, tensor: Tensor) -> Tensor:
        """What a module of the current block has, with the rows first."""
        return self._unfolded(tensor.movedim(self._family.row_axis, 0), self._position)

    def _as_in_block(self, tensor: Tensor) -> Tensor:
        return self._folded(tensor, self._position).movedim(0, self._family.row_axis)

    def _safe(self, tensor: Tensor) -> Tensor:
        return tensor.clone() if self._family.writes_into_branches else tensor

    def _captures(self, position: int, branch: Branch) -> bool:
        return any(selection.has(position, branch.kinds) for selection in self._selections)

    def _estimated_size(self, of_block: list[Kept]) -> int:
        """Bytes to capture for each row, if each branch leaves as much as those of this block."""
        branches = [
            sum(self._captures(position, branch) for branch in place.blocks.branches)
            for position, place in enumerate(self._places)
        ]
        size = sum(kept.nbytes for kept in of_block) // of_block[0].rows
        return size * sum(branches) // branches[self._position]
