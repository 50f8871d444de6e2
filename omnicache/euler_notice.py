"""Notices whether a sampler that nobody here knows goes on as Euler's does from the state that it reports."""

from collections.abc import Sequence

from torch import Tensor

from .reading import Readings

STEPS = 2  # that must have been Euler's before anything is written into the state
TOLERANCE = 1e-6  # of the squared distance to Euler's next state, over that of the step


class EulerNotice:
    """One per sampling run. Compares each state with the one before plus (sigma_next - sigma) d, without
    waiting for the device. A sampler of several evaluations a step, or of several steps, or behind an
    inpainting mask, fails."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        """sigmas: one more than there are steps."""
        self._sigmas = sigmas
        self._output: Tensor | None = None
        # The next state, and the squared length of the step.
        self._expected: tuple[Tensor, Tensor] | None = None
        self._readings = Readings()
        self._passed = 0
        self._has_failed = False

    @property
    def is_euler(self) -> bool:
        """True if every step that is known was Euler's, and enough are."""
        for _, (distance,) in self._readings.arrived():
            self._passed += distance < TOLERANCE
            self._has_failed |= not distance < TOLERANCE
        return self._passed >= STEPS and not self._has_failed

    def evaluated(self, x: Tensor, output: Tensor) -> None:
        """An evaluation at the state x had this output."""
        if self._expected is not None:
            state, length = self._expected
            if state.shape != x.shape or state.device != x.device:
                self._has_failed = True
                return
            self._readings.send(((x - state).square().sum() / length).reshape(1))
        self._output, self._expected = output, None

    def reported(self, step: int, state: Tensor) -> None:
        """The sampler has reported this state, as it is now, with step number `step`."""
        if self._output is None or not step < len(self._sigmas) - 1:
            return
        if self._output.shape != state.shape:
            self._has_failed = True
            return
        move = self._output * (self._sigmas[step + 1] - self._sigmas[step])
        self._expected = state + move, move.square().sum()
        self._output = None
