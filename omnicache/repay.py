"""Repay: what reused steps did wrong is taken out of the state at the next computed step.

A reused step j moves the state by its weight w_mj times the forecast output d^_j. At the next computed step
m the true output is known, and the parabola through it and the two computed outputs before gives a better
d~_j. So the state at m should have been

    x_m + sum_j w_mj (d~_j - d^_j)

which costs no evaluation. The output of step m was evaluated before the state was moved by delta. Its
denoised estimate is kept and its output read again at the new state, d_m + delta / sigma_m, for the
parabolas and for what is forecast from it; without that the run can blow up. docs/design-notes.md has the
multistep method that plan, forecast and repay make together, and where it is stable.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from .euler_notice import EulerNotice
from .forecast import Weights, lagrange
from .response import Response
from .trail import Reused, Trail


class Repay:
    """Computes what is to be added to the state of one sampling run."""

    def __init__(
        self,
        axis: Sequence[float],
        sigmas: Sequence[float],
        response: Response,
        strength: float = 1.0,
        notice: EulerNotice | None = None,
        filtered: Callable[[Tensor, int], Tensor] = lambda change, step: change,
    ) -> None:
        """axis: place of each step, rising, on which outputs are taken for parabolas. sigmas: their noise
        levels. strength: share of what is due that is added. notice: of a sampler that nobody here knows;
        until it has noticed Euler's steps, nothing is due. filtered: the part of a change that is to be
        added at this step."""
        self.response = response
        self.notice = notice
        self._axis = axis
        self._sigmas = sigmas
        self._strength = strength
        self._filtered = filtered

    def due(self, trail: Trail, step: int) -> Tensor | None:
        """What to add to the held state of a step that the sampler reports, shaped as the latent; None
        where nothing is due. The trail's outputs of this step are read again at the new state, and what is
        paid is forgotten."""
        if not 0 <= step < len(self._sigmas) - 1:  # some samplers report once more at the end
            return None
        payable = [each for each in trail.reused if self._is_payable(trail, each, step)]
        is_known = self.notice is None or self.notice.is_euler
        if not payable or not is_known or not self.response.has_state(step):
            if step in trail.steps_of(0):
                trail.reused = []  # it was not comparable; what comes later would say less of it
            return None
        parabolas = [self._parabola(trail, each) for each in payable]
        errors = [
            trail.combined(weights, each.stage).sub_(each.output)
            for each, weights in zip(payable, parabolas, strict=True)
        ]
        response, scale = self.response, float(self.response.scales[step])
        moves = [response.move(step, each.step, each.stage) for each in payable]
        share = self._strength * self._consistent(step, [scale * move for move in moves], parabolas)
        change = self._filtered(_sum(errors, moves), step).mul_(share)
        for stage, known in list(trail.newest()):
            if known.step == step:
                trail.replace_newest(stage, known.output + change * (scale / known.sigma))
        trail.reused = []
        return change

    def _consistent(self, step: int, moves: Sequence[float], parabolas: Sequence[Weights]) -> float:
        """The share of a change with which it is that of the output read again: d_m + delta / sigma_m is in
        the parabolas too, so delta = raw + sum_j w_mj p_j delta / sigma_m, with p_j the weight of step m in
        the parabola at j."""
        feedback = sum(move * weights[0] for move, weights in zip(moves, parabolas, strict=True))
        return 1.0 / (1.0 + max(-feedback / self._sigmas[step], 0.0))

    def _is_payable(self, trail: Trail, reused: Reused, step: int) -> bool:
        steps, axis = trail.steps_of(reused.stage), self._axis
        if len(steps) < 2 or steps[0] != step or not reused.stage < self.response.stages:
            return False
        # A sampler that goes back has nothing between two computed steps.
        places = [axis[number] for number in (steps[0], reused.step, *steps[1:])]
        return all(later > earlier for later, earlier in zip(places, places[1:], strict=False))

    def _parabola(self, trail: Trail, reused: Reused) -> Weights:
        """Weights of the computed outputs, newest first, for the output that the reused step should have
        had."""
        known = [self._axis[step] for step in trail.steps_of(reused.stage)]
        return lagrange(self._axis[reused.step], known)


def _sum(errors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = errors[0] * weights[0]
    for error, weight in zip(errors[1:], weights[1:], strict=True):
        total.add_(error, alpha=weight)
    return total
