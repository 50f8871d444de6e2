"""What the host calls the model with: what each call means to the engine, in the wrappers around it."""

import logging
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch

from ..omnicache.output_run import OutputRun
from ..omnicache.report import RunReport
from ..omnicache.run import Call
from ..omnicache.sampling_run import Asked, SamplingRun
from ..omnicache.tap import BlockTap

log = logging.getLogger("omnicache")

# In the transformer options of a sampling run: by conditioning, the ControlNets that add something now.
ACTIVE_CONTROLS = "omnicache_active_controls"


class Run(Protocol):
    """What the engine does in a sampling run: a BlockRun or an OutputRun."""

    def step_finished(self, step: int) -> RunReport | None: ...
    def sampling_finished(self, samples: torch.Tensor) -> None: ...
    def close(self) -> RunReport | None: ...


@runtime_checkable
class BlockRun(Run, Protocol):
    """A run in the blocks of the model: a CacheRun or a CalibrationRun."""

    tap: BlockTap

    def evaluate(self, call: Call) -> torch.Tensor: ...
    def spares_control(self, rows: tuple[Hashable, ...], x: torch.Tensor) -> bool: ...


def predict_noise(
    run: SamplingRun, sigma: float, executor, x, timestep, model_options=None, seed=None
) -> torch.Tensor:
    """PREDICT_NOISE wrapper: one evaluation that the sampler asks for, before the host takes it apart into
    calls of the model. sigma: the noise level of the step, a number that the host knows already."""
    guider, model_options = executor.class_obj, model_options or {}
    own, others = (
        len(options.get("sampler_post_cfg_function", ())) for options in (model_options, guider.model_options)
    )
    return run.predict(
        Asked(
            forward=lambda: executor(x, timestep, model_options, seed),
            x=x,
            sigma=timestep,
            beside=_comparable(guider, sigma),
            reads_parts=own > others,
        )
    )


def count_rows(
    run: OutputRun, executor, x, t, c_concat=None, c_crossattn=None, control=None,
    transformer_options=None, **kwargs,
) -> torch.Tensor:  # fmt: skip
    """APPLY_MODEL wrapper: how many rows the model is called with."""
    run.rows_computed(len((transformer_options or {}).get("uuids") or ()) or 1)
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def _comparable(guider, sigma: float) -> Hashable:
    """What acts beside the model at this noise level; something that nothing equals where another pack's
    guider keeps it in a way that is not the host's, so that each step is computed."""
    try:
        return _acting_at(guider, sigma)
    except (AttributeError, KeyError, TypeError) as error:
        log.debug("OmniCache: conditionings of %s", type(guider).__name__, exc_info=error)
        return object()


def _acting_at(guider, sigma: float) -> Hashable:
    """What acts on an evaluation at this noise level beside the model: the conditionings that are due,
    their ControlNets, and the strengths of their hooks in halves, for a polynomial follows what changes
    little by little. All of it is known before sampling starts; nothing is read from the device."""
    level = (sigma,)
    return tuple(
        (side, cond.get("uuid"), _active_controls(cond, level), _strengths(cond.get("hooks"), sigma))
        for side, conds in getattr(guider, "conds", {}).items()
        for cond in conds or ()
        if _is_due(cond, level)
    )


def _strengths(hooks, sigma: float) -> tuple[int, ...]:
    """Of a conditioning's hooks at a noise level. The host moves on to a keyframe only when it evaluates."""
    strengths = []
    for hook in hooks.hooks if hooks is not None else ():
        passed = [keyframe.strength for keyframe in hook.hook_keyframe.keyframes if sigma <= keyframe.start_t]
        strengths.append(round(2 * (passed[-1] if passed else hook.strength)))
    return tuple(strengths)


def apply_model(
    run: BlockRun,
    executor,
    x,
    t,
    c_concat=None,
    c_crossattn=None,
    control=None,
    transformer_options=None,
    **kwargs,
) -> torch.Tensor:
    """APPLY_MODEL wrapper: one call of the model, for every row the host put into it. The only place that all
    families pass; here the output has become an estimate of x0."""
    transformer_options = transformer_options or {}
    uuids = transformer_options.get("uuids") or ()
    sides = transformer_options.get("cond_or_uncond") or ()
    replacements = transformer_options.get("patches_replace", {}).get("dit", {})
    run.tap.rows = x.shape[0]
    refusal = None
    if not uuids or len(sides) != len(uuids) or x.shape[0] % len(uuids):
        refusal = "a call of the model came without the names of its rows"
    elif not run.tap.is_in_place(replacements):
        refusal = "another node replaced blocks in this pass, which ran in full"
    elif "multigpu_thread_device" in transformer_options:  # set by hosts that spread a step over GPUs
        refusal = "several GPUs computed parts of a step at once, which ran in full"

    def forward(control) -> torch.Tensor:
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    has_patches = "double_block" in transformer_options.get("patches", {})
    return run.evaluate(
        Call(
            # HunyuanDiT takes its ControlNet outputs off the lists, and a second forward needs them again.
            forward=lambda: forward(_copy(control)),
            # Patches behind the last block run at a reuse too, after ControlNet's additions, so those stay.
            without_control=partial(forward, None) if control is not None and not has_patches else None,
            x=x,
            sigma=t,
            rows=tuple(_row(*row, transformer_options) for row in zip(uuids, sides, strict=False)),
            refusal=refusal,
            writes_between=has_patches,
            beside=_beside(executor.class_obj.current_patcher, uuids, transformer_options),
        )
    )


def calc_cond_batch(
    run: BlockRun, executor, model, conds, x_in, timestep, model_options
) -> list[torch.Tensor]:
    """CALC_COND_BATCH wrapper: spares the ControlNets an evaluation that will be a reuse."""
    given = [(cond, side) for side, of_side in enumerate(conds) for cond in of_side or ()]
    if not any("control" in cond for cond, _ in given):
        return executor(model, conds, x_in, timestep, model_options)
    given = [(cond, side) for cond, side in given if _is_due(cond, timestep)]
    transformer_options = model_options.get("transformer_options", {})
    replacements = transformer_options.get("patches_replace", {}).get("dit", {})
    rows = tuple(_row(cond.get("uuid"), side, transformer_options) for cond, side in given)
    is_plain = "double_block" not in transformer_options.get("patches", {})
    # A conditioning of an area has another shape than x_in, and spares_control then says no.
    if is_plain and run.tap.is_in_place(replacements) and run.spares_control(rows, x_in):
        conds = [
            [{key: value for key, value in cond.items() if key != "control"} for cond in side]
            if side is not None
            else None
            for side in conds
        ]
    else:
        active = {cond.get("uuid"): _active_controls(cond, timestep) for cond, _ in given}
        model_options = {
            **model_options,
            "transformer_options": {**transformer_options, ACTIVE_CONTROLS: active},
        }
    return executor(model, conds, x_in, timestep, model_options)


def _is_due(cond: dict[str, Any], timestep: Sequence[float] | torch.Tensor) -> bool:
    """Whether the host evaluates a conditioning at this noise level."""
    start, end = cond.get("timestep_start"), cond.get("timestep_end")
    return (start is None or timestep[0] <= start) and (end is None or timestep[0] >= end)


def _active_controls(cond: dict[str, Any], timestep: Sequence[float] | torch.Tensor) -> tuple[int, ...]:
    """Which of a conditioning's chain of ControlNets add something at this noise level. On a GPU it must be
    waited for, so it is looked at only where one has a begin or an end."""
    active, control = [], cond.get("control")
    while control is not None:
        is_throughout = control.timestep_percent_range == (0.0, 1.0)
        if is_throughout or control.timestep_range[1] <= timestep[0] <= control.timestep_range[0]:
            active.append(id(control))
        control = control.previous_controlnet
    return tuple(active)


def _beside(patcher, uuids: Sequence[Any], transformer_options: dict[str, Any]) -> tuple[Hashable, ...]:
    """For each row, what acts on it beside its conditioning: its ControlNets and the LoRA hooks of the call,
    whose strength keyframes change. Strengths are told in halves, for a polynomial follows what changes
    little by little."""
    hooks = patcher.current_hooks.hooks if patcher.current_hooks else ()
    strengths = tuple(round(2 * hook.strength) for hook in hooks)
    active = transformer_options.get(ACTIVE_CONTROLS, {})
    return tuple((active.get(uuid), strengths) for uuid in uuids)


def _row(uuid, side: int, transformer_options: dict[str, Any]) -> Hashable:
    """Names a row of a call: its conditioning and the context window it is seen through.

    side: 0 of the positive, 1 of the negative. The host gives a conditioning that it makes up for an area of
    the other side that one's uuid.
    """
    window = transformer_options.get("context_window")
    return uuid, side, tuple(window.index_list) if window is not None else None


def _copy(control: dict[str, list] | None) -> dict[str, list] | None:
    return {place: list(outputs) for place, outputs in control.items()} if control is not None else None
