"""A run that checks itself: what is replayed at the step at which it was captured changes nothing."""

from comfyui_omnicache.nodes.host import patched
from comfyui_omnicache.omnicache.branch_tap import BranchTap
from comfyui_omnicache.omnicache.lane import JoinedCaches, split_captured
from comfyui_omnicache.omnicache.storage import Kept


class ReplayEachStep:
    """Answers each evaluation in full, and replays what it has just captured at the same x and sigma."""

    def __init__(self, tap, errors: list[float]) -> None:
        self.tap, self.errors = tap, errors

    def evaluate(self, call):
        late = call.without_control is not None
        full, captured = self.tap.capture(call.forward, Kept.as_is, late)
        (cache,) = split_captured(captured, 1)
        again = self.tap.replay(
            call.reuse_forward(self.tap), JoinedCaches([cache]), writes_between=call.writes_between
        )
        self.errors.append(((again - full).norm() / full.norm()).item())
        return full

    def spares_control(self, rows, x): ...
    def step_finished(self, step): ...
    def sampling_finished(self, samples): ...
    def close(self): ...


def replaying_each_step(model, tap: type) -> tuple:
    """The patched model, and the list of relative errors that its runs will add to."""
    errors: list[float] = []

    def make_run(sampling, blocks) -> ReplayEachStep:
        return ReplayEachStep(tap(blocks), errors)

    return patched(model, make_run, with_branches=tap is BranchTap), errors
