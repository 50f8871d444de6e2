"""Where the pack touches the host: runs a sampling run through the engine, by the host's public hooks only.

A patched model carries one OUTER_SAMPLE wrapper. When sampling starts it builds the run and hangs what that
run needs, block callbacks or wrappers around the model, into the options of that sampling run alone; when
sampling ends, however it ends, all is gone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, runtime_checkable

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import get_executing_context

from ..omnicache.branch_tap import BranchTap
from ..omnicache.families import family_of, known_family_of, modules_of, places_of
from ..omnicache.output_run import OutputRun
from ..omnicache.report import RunReport
from ..omnicache.run_log import LoggedRun, RunLog
from ..omnicache.sampling_run import SamplingRun
from ..omnicache.tap import Blocks
from . import messages
from .bridge import bridge, skip_unneeded_attention
from .calls import BlockRun, Run, apply_model, calc_cond_batch, count_rows, predict_noise
from .samplers import name_of

KEY = "omnicache"


@runtime_checkable
class FollowsStates(Protocol):
    """A run that wants to see what the sampler has in hand too, of which areas and context windows show the
    model parts only."""

    def state_seen(self, x: torch.Tensor) -> None: ...


@dataclass(frozen=True)
class Sampling:
    """A sampling run that is about to start. model: the one that executes. sampler: its name, as in the menu.
    sigmas: one more than there are steps. latent_shape: of one sample. cfg: 1 for a guider that has none.
    host_sampler: the host's object. is_masked: True of inpainting."""

    model: "comfy.model_patcher.ModelPatcher"
    sampler: str
    sigmas: list[float]
    latent_shape: tuple[int, ...]
    cfg: float
    host_sampler: Any = None
    is_masked: bool = False

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


# Builds the run once it is known what will be sampled and where the model's blocks are, if that is known,
# or says why the run goes as without the pack. Raises ValueError to refuse.
MakeRun = Callable[[Sampling, Blocks | None], Run | str]


def patched(
    model: "comfy.model_patcher.ModelPatcher",
    make_run: MakeRun,
    with_branches: bool = False,
    shown_on: str | None = None,
    needs_blocks: bool = True,
) -> "comfy.model_patcher.ModelPatcher":
    """A clone of the model whose sampling runs go through the engine, in place of an earlier patch of this
    pack.

    with_branches: a BranchTap will be used. shown_on: the node whose plot follows the steps. needs_blocks:
    False for runs that can do without. The clone carries a RunLog, which its own clones share. Where blocks
    are needed, raises UnknownModel if the model is of no family the pack knows, ValueError if it is no
    transformer.
    """
    find = family_of if needs_blocks else known_family_of
    family = find(model.model.diffusion_model)
    clone = model.clone()
    if family is not None:
        bridge(clone, family, with_branches)
    clone.set_attachments(KEY, RunLog())
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, partial(_sample, make_run, shown_on))
    return clone


def _sample(
    make_run: MakeRun,
    shown_on: str | None,
    executor,
    noise,
    latent_image,
    sampler,
    sigmas,
    *args,
    **kwargs,
) -> torch.Tensor:
    """OUTER_SAMPLE wrapper: one sampling run."""
    guider = executor.class_obj
    host_options = guider.model_options
    options = comfy.model_patcher.create_model_options_clone(host_options)
    sampling = Sampling(
        guider.model_patcher,
        name_of(sampler),
        sigmas.tolist(),
        tuple(noise.shape[1:]),
        _cfg_of(guider),
        sampler,
        is_masked=(args[0] if args else kwargs.get("denoise_mask")) is not None,
    )
    try:
        run = _attach(options, sampling, make_run, shown_on)
    except ValueError as error:
        # The host shows this on the sampler's node, so it must say where it comes from.
        raise ValueError(f"OmniCache on the model of this sampler: {error}") from error
    started = time.perf_counter()
    if isinstance(run, str):
        report = RunReport(sampling.steps, planned_full=None, why_full=run)
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            report.finished = True
            return samples
        finally:
            report.seconds = time.perf_counter() - started
            _remember(report, sampling)
    guider.model_options = options
    try:
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options = host_options
        report = run.close()
        if report is not None:
            report.seconds = time.perf_counter() - started
            messages.announce(report)
            _remember(report, sampling)


def _cfg_of(guider) -> float:
    """The guidance scale: 1 of a guider that has none, the largest of one that changes it while sampling."""
    cfg = getattr(guider, "cfg", 1.0)
    return float(max(cfg)) if isinstance(cfg, list | tuple) else float(cfg)


def run_log_of(model: "comfy.model_patcher.ModelPatcher") -> RunLog | None:
    """What the patched model's sampling runs left, None if it is not patched."""
    return model.get_attachment(KEY)


def place_in_prompt() -> tuple[str | None, str | None]:
    """The host's names of the node that is executing and of its prompt; None outside a prompt."""
    context = get_executing_context()
    return (context.node_id, context.prompt_id) if context is not None else (None, None)


def _remember(report: RunReport, sampling: Sampling) -> None:
    """Leaves a run that has ended to the report nodes of its model."""
    run_log = run_log_of(sampling.model)
    if run_log is None:
        return
    node, prompt = place_in_prompt()
    run_log.add(
        LoggedRun(
            report,
            _name_of(sampling.model.model.diffusion_model),
            sampling.sampler,
            tuple(sampling.sigmas),
            datetime.now(UTC).isoformat(timespec="seconds"),
            node,
            prompt,
        )
    )


def _name_of(diffusion_model: torch.nn.Module) -> str:
    family = known_family_of(diffusion_model)
    return family.name if family is not None else type(diffusion_model).__name__


def _attach(
    options: dict[str, Any], sampling: Sampling, make_run: MakeRun, shown_on: str | None
) -> Run | str:
    """Hangs a new run into the options of one sampling run, if there is to be one."""
    transformer_options = options.setdefault("transformer_options", {})
    if "easycache" in transformer_options:
        raise ValueError(
            "model: EasyCache or LazyCache is on this model too, and two caches would reuse each other's "
            "reuse. Remove one of the two nodes."
        )
    replacements = transformer_options.setdefault("patches_replace", {}).setdefault("dit", {})
    run = make_run(sampling, _blocks_of(sampling.model.model.diffusion_model, replacements))
    if isinstance(run, str):
        return run
    add = partial(
        comfy.patcher_extension.add_wrapper_with_key, transformer_options=options, is_model_options=True
    )
    if isinstance(run, BlockRun):
        replacements.update(run.tap.callbacks)
        if isinstance(run.tap, BranchTap):
            skip_unneeded_attention(transformer_options)
        add(WrappersMP.APPLY_MODEL, KEY, partial(apply_model, run))
        add(WrappersMP.CALC_COND_BATCH, KEY, partial(calc_cond_batch, run))
    if isinstance(run, OutputRun):
        add(WrappersMP.APPLY_MODEL, KEY, partial(count_rows, run))
    follower = _Follower(run, sampling.sigmas, shown_on)
    add(WrappersMP.SAMPLER_SAMPLE, KEY, follower.sample)
    if isinstance(run, SamplingRun):
        add(WrappersMP.PREDICT_NOISE, KEY, follower.predict_noise)
    if isinstance(run, FollowsStates):
        add(WrappersMP.PREDICT_NOISE, KEY, partial(_show_state, run))
    return run


def _blocks_of(diffusion_model: torch.nn.Module, replacements: dict) -> Blocks | None:
    """Where the blocks are; None of a model of no family that the pack knows."""
    family = known_family_of(diffusion_model)
    if family is None:
        return None
    return Blocks(
        family,
        places_of(diffusion_model, family),
        {side.attribute: len(list(modules_of(diffusion_model, side.attribute))) for side in family.sides},
        chained=dict(replacements),
        on_size=messages.tell_size,
    )


def _show_state(run: FollowsStates, executor, x, *args, **kwargs) -> torch.Tensor:
    """PREDICT_NOISE wrapper of a run that only looks on."""
    run.state_seen(x)
    return executor(x, *args, **kwargs)


class _Follower:
    """Follows the sampler of one run. Counting the sampler's own steps needs no look at the sigma of a
    call, which on a GPU would wait for all work queued there."""

    def __init__(self, run: Run, sigmas: list[float], shown_on: str | None) -> None:
        self._run, self._sigmas, self._shown_on = run, sigmas, shown_on
        self._step = 0
        self._told = 0
        self._evaluated: torch.Tensor | None = None  # what the sampler had evaluated last

    def sample(
        self, executor, guider, sigmas, extra_args, callback, noise, latent_image=None,
        denoise_mask=None, *args, **kwargs,
    ) -> torch.Tensor:  # fmt: skip
        """SAMPLER_SAMPLE wrapper: tells the run where the sampler is."""

        def on_step(step: int, denoised: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            if isinstance(self._run, SamplingRun):
                self._repay(self._run, step, x, denoise_mask)
            self._finish(step)
            if callback is not None:
                callback(step, denoised, x, total_steps)

        samples = executor(
            guider, sigmas, extra_args, on_step, noise, latent_image, denoise_mask, *args, **kwargs
        )
        self._run.sampling_finished(samples)
        return samples

    def predict_noise(self, executor, x, *args, **kwargs) -> torch.Tensor:
        """PREDICT_NOISE wrapper: one evaluation that the sampler asks for, before it is taken apart into
        calls of the model."""
        self._evaluated = x
        sigma = self._sigmas[max(0, min(self._step, len(self._sigmas) - 1))]
        return predict_noise(self._run, sigma, executor, x, *args, **kwargs)

    def _repay(self, run: SamplingRun, step: int, reported: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Takes out of the sampler's state what reused steps did wrong. The one place where the pack writes
        into a tensor of the host: the state is the sampler's own, no other hook reaches it, and the host's
        samplers go on from it (Response says which of the two it is; one that goes on from neither has
        none, and another pack's is left alone until it was noticed)."""
        state = {"reported": reported, "evaluated": self._evaluated}.get(run.held)
        self._evaluated = None
        if state is None:
            return
        change = run.due(step, state)
        if change is not None:
            # Outside of an inpainting mask the host puts the original back at each evaluation.
            try:
                state.add_(change if mask is None else change * mask)
            except comfy.model_management.OOM_EXCEPTION:
                raise
            except RuntimeError as error:  # a tensor that torch lets nobody write into
                messages.log.debug("OmniCache: repay", exc_info=error)
                run.stop_repaying("the sampler's state could not be written into, so nothing was repaid")
        run.state_reported(step, reported)

    def _finish(self, step: int) -> None:
        self._step = step + 1
        report = self._run.step_finished(step)
        if report is not None and self._shown_on is not None and len(report.step_kinds) > self._told:
            self._told = len(report.step_kinds)  # a sampler may report a step twice
            messages.announce_step(self._shown_on, report)
