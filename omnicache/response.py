"""How a sampler answers to the outputs of the model that it is given: the weights that repay needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The tensor that a sampler goes on from: the one that it reports to its callback, or the one that it has
# evaluated.
Held = Literal["reported", "evaluated"]


@dataclass(frozen=True, eq=False)
class Response:
    """Of a sampler whose update is linear in the state and in the outputs, for one list of noise levels.

    An output is d = (x - denoised) / sigma. Outputs of other evaluations stay as they are: the denoised
    estimate follows the state. What counts is the result: a sampler of several steps goes on using an
    output for some steps.

    held: which tensor is the state.
    outputs: (steps, stages) how far the result moves for a unit more of each output.
    states: (steps,) how far it moves for a unit more of the state that a step holds; 0 where the state is
    not used any more.
    scales: (steps,) a unit of the state that a step holds, in units of what it evaluates.
    """

    held: Held
    outputs: Floats
    states: Floats
    scales: Floats

    @property
    def stages(self) -> int:
        """Evaluations of one step, at most."""
        return self.outputs.shape[1]

    def has_state(self, step: int) -> bool:
        """True if the result goes on from the state at this step, as it does from the one before: near the
        end some samplers go on from the denoised estimate alone."""
        before = float(self.states[max(step - 1, 0)])
        return float(self.states[step]) > max(LEAST, LEAST_SHARE * before)

    def move(self, step: int, reused: int, stage: int) -> float:
        """What the state of a step is to be moved by for a unit more of an earlier output. Call where
        has_state."""
        return float(self.outputs[reused, stage] / self.states[step])

    @classmethod
    def of_euler(cls, sigmas: Sequence[float]) -> "Response":
        """Of x + (sigma_next - sigma) d, by its formula. sigmas: one more than there are steps."""
        lengths = np.diff(np.asarray(sigmas, dtype=np.float64))
        ones = np.ones(len(lengths))
        return cls("reported", lengths[:, None], ones, ones)


LEAST, LEAST_SHARE = 1e-3, 0.2  # below them, a state has no effect to speak of
