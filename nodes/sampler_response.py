"""Asks a sampler of the host how its state answers to the outputs it is given, by running it on a few
numbers.

The host's samplers are linear in the state and in the outputs of the model. So instead of a formula for
each of them, the sampler itself is run once, on as many numbers as there are questions: the model that it
is given answers a unit for one evaluation and zero for all others. It takes a few milliseconds before
sampling starts (a second with a thousand steps), and no evaluation of the model.
"""

import inspect
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.samplers
import numpy as np
import torch

from ..omnicache.response import LEAST, Held, Response
from ..omnicache.trail import MOST_STAGES

log = logging.getLogger("omnicache")

# Whose samplers are functions of their arguments alone.
_OF_THE_HOST = ("comfy.", "comfy_extras.")


def is_of_the_host(sampler) -> bool:
    """Whether it is the host's in full. A class of another pack may do more around a function of the
    host."""
    function = getattr(sampler, "sampler_function", None)
    is_plain = type(sampler) is comfy.samplers.KSAMPLER and callable(function)
    return is_plain and str(getattr(function, "__module__", "")).startswith(_OF_THE_HOST)


def response_of(sampler, sigmas: list[float], model) -> Response | None:
    """The response of a sampler of the host, None where it has none: where it is not linear, does not
    report its steps, or cannot be told anything. Leaves the state of random numbers as it was.

    sigmas: one more than there are steps. model: the ModelPatcher that executes.
    """
    levels = torch.tensor(sigmas)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            for held in ("reported", "evaluated"):
                response = _Questions(len(sigmas) - 1, held, model).asked_of(sampler, levels)
                if response is not None:
                    return response
    except comfy.model_management.OOM_EXCEPTION:
        raise
    except Exception as error:  # whatever a later host has changed: sampling goes on, without repay
        log.debug("OmniCache: %s was not understood", sampler, exc_info=error)
    return None


class _Questions:
    """One run of a sampler. Each element of its state, of shape (1, 1, 1, elements), is one question:
    nothing at all, a unit of output at all evaluations, at one of them, a unit of state at one step."""

    NOTHING, EVERYTHING, FIRST = 0, 1, 2

    def __init__(self, steps: int, held: Held, model) -> None:
        # As far as samplers look into the model that they are given.
        model_sampling = model.get_model_object("model_sampling")
        self.inner_model = SimpleNamespace(
            inner_model=SimpleNamespace(model_sampling=model_sampling), model_patcher=model
        )
        self._steps, self._held = steps, held
        self._elements = self.FIRST + steps * MOST_STAGES + steps
        self._step = self._stage = 0
        self._evaluated: set[tuple[int, int]] = set()
        self._latest: dict[int, np.ndarray] = {}
        self._reported: dict[int, np.ndarray] = {}
        self._last: torch.Tensor | None = None  # what was evaluated last

    def asked_of(self, sampler, sigmas: torch.Tensor) -> Response | None:
        # In float32, as samplers compute: some of them mix the state with constants.
        x = torch.zeros(1, 1, 1, self._elements)
        extra_args = {"model_options": {}, "seed": 0}
        options = {**sampler.extra_options, **_without_noise(sampler.sampler_function, x)}
        result = sampler.sampler_function(
            self, x, sigmas, extra_args=extra_args, callback=self._report, disable=True, **options
        )
        reads_guidance = bool(extra_args["model_options"])  # CFG++ is not linear in the guided output alone
        return self._answer(result.flatten().numpy()) if not reads_guidance else None

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        """In the place of the model."""
        self._last = x
        self._evaluated.add((self._step, self._stage))
        self._latest[self._step] = x.flatten().numpy().copy()
        output = torch.zeros_like(x)
        output[..., self.EVERYTHING] = 1.0
        if self._step < self._steps and self._stage < MOST_STAGES:
            output[..., self._element(self._step, self._stage)] = 1.0
        self._stage += 1
        return x - sigma.view(-1, 1, 1, 1) * output

    def _report(self, facts: dict[str, Any]) -> None:
        """In the place of the callback."""
        held = facts["x"] if self._held == "reported" else self._last
        self._reported[self._step] = held.flatten().numpy().copy()
        if self._step < self._steps:
            held[..., self._element_of_state(self._step)] += 1.0
        self._step, self._stage = self._step + 1, 0

    def _element(self, step: int, stage: int) -> int:
        return self.FIRST + step * MOST_STAGES + stage

    def _element_of_state(self, step: int) -> int:
        return self.FIRST + self._steps * MOST_STAGES + step

    def _answer(self, result: np.ndarray) -> Response | None:
        """result: what the sampler gave for each question."""
        stages = (
            max((stage for step, stage in self._evaluated if step < self._steps), default=MOST_STAGES) + 1
        )
        if self._step != self._steps or stages > MOST_STAGES or not np.isfinite(result).all():
            return None
        moved = result - result[self.NOTHING]
        outputs = moved[self._element(0, 0) :][: self._steps * MOST_STAGES].reshape(self._steps, MOST_STAGES)
        states = moved[self._element_of_state(0) :]
        is_linear = np.isclose(outputs.sum(), moved[self.EVERYTHING], rtol=1e-3, atol=1e-6)
        is_held = (np.abs(states[1:-2]) > LEAST).all()
        if not (is_linear and is_held):
            return None
        scales = np.array([self._scale(step) for step in range(self._steps)])
        return Response(self._held, outputs[:, :stages], states, scales)

    def _scale(self, step: int) -> float:
        """A unit of the state that is held at a step in units of what was evaluated last before, by what a
        change of the state one step earlier did to both."""
        if step == 0:
            return 1.0
        change = self._element_of_state(step - 1)
        held, evaluated = (
            values[step][change] - values[step][self.NOTHING] for values in (self._reported, self._latest)
        )
        return float(evaluated / held) if abs(held) > LEAST else 1.0


def _without_noise(function: Callable, x: torch.Tensor) -> dict[str, Any]:
    """Arguments under which a sampler draws no noise, as far as it has them: noise does not change its
    response."""
    quiet = {"noise_sampler": lambda sigma, sigma_next: torch.zeros_like(x), "s_noise": 0.0}
    known = inspect.signature(function).parameters
    return {name: value for name, value in quiet.items() if name in known}
