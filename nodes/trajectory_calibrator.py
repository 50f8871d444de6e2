"""Node: samples a few pictures in full quality and measures the model's sampling trajectory on the way."""

import logging

import comfy.sample
import comfy.samplers
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ..omnicache.calibration import CalibrationRun
from ..omnicache.profile import Profile, Settings, fall
from ..omnicache.tap import Blocks, StackTap
from . import library, plot
from .host import Sampling, patched
from .identity import identity_of, timesteps_of
from .messages import step_callback, tell
from .samplers import FREE_RUNNING_SAMPLERS, remark_on
from .sockets import CATEGORY, ProfileSocket

MIN_CALIBRATION_STEPS = 8


class TrajectoryCalibrator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrajectoryCalibrator",
            display_name="Trajectory Calibrator",
            category=CATEGORY,
            description="Samples in full quality, like KSampler, and measures on the way at which steps the "
            "model could be spared: how the way from noise to picture bends, and how much error reuse would "
            "cause. Do it once for a model; save the profile and pick it in Curvature Scheduler from then "
            "on.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to measure, with the LoRAs and shift you will use."
                ),
                io.Conditioning.Input(
                    "positive", tooltip="A typical prompt. The profile serves other prompts too."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt, as for KSampler."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="An empty latent of the size you will use. A batch counts as that many "
                    "trajectories.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,  # a new seed would only calibrate again
                    tooltip="Noise seed of the first run; each further run adds one to it.",
                ),
                io.Int.Input(
                    "steps",
                    default=30,
                    min=MIN_CALIBRATION_STEPS,
                    max=1000,
                    tooltip="Sampling steps, 8 or more. The profile also serves other step counts.",
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance scale, as for KSampler.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="Sampler of the calibration. Euler serves most others too; for one that adds "
                    "noise at each step (ancestral, SDE) take that one.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="simple",
                    tooltip="Spacing of the noise levels. The profile also serves other schedulers.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the noise range that is sampled, above 0. Keep 1.0: the profile then "
                    "covers image-to-image at any strength.",
                ),
                io.Int.Input(
                    "samples",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Sampling runs to measure, each as long as a normal one. One is usually "
                    "enough; four measure more evenly.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Name under which the profile is saved in models/omnicache. Empty: not saved; "
                    "it still leaves through the profile output.",
                ),
                ProfileSocket.Input(
                    "profile",
                    optional=True,
                    tooltip="An earlier profile of the same model and settings; the new samples are added "
                    "to it.",
                ),
            ],
            outputs=[
                ProfileSocket.Output(
                    "measured",
                    display_name="profile",
                    tooltip="What was measured; goes to Curvature Scheduler.",
                ),
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="The full-quality results of all runs as one batch: the same that KSampler "
                    "gives for these seeds.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent_image,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        samples,
        save_as,
        profile: Profile | None = None,
    ) -> io.NodeOutput:
        library.check_name(save_as)
        if sampler_name in FREE_RUNNING_SAMPLERS:
            raise ValueError(
                f"sampler_name: {sampler_name} chooses its own steps, so there are no steps to plan. Take "
                "the sampler that you will generate with; docs/samplers.md compares them."
            )
        callbacks = step_callback(model, steps, samples)
        latents = []
        for number in range(samples):
            measured, latent = _calibrate(
                model,
                positive,
                negative,
                latent_image,
                (seed + number) % 2**64,
                steps,
                cfg,
                sampler_name,
                scheduler,
                denoise,
                callbacks(number),
                profile,
            )
            profile = measured if profile is None else profile.merged_with(measured)
            latents.append(latent)
        note, level = None, logging.INFO
        if save_as:
            try:
                note = f"saved as {library.save(profile, save_as)}"
            except ValueError as error:  # what was measured still leaves through the output
                note, level = f"not saved. {error}", logging.WARNING
        where = note or "not saved, for save_as is empty"
        tell(f"calibrated (samples measured: {profile.trajectories}), profile {where}", level)
        batch = {**latent_image, "samples": torch.cat(latents)}
        return io.NodeOutput(profile, batch, ui=plot.payload(profile, note=note))


def _calibrate(
    model, positive, negative, latent_image, seed, steps, cfg, sampler_name, scheduler, denoise, callback,
    earlier,
) -> tuple[Profile, torch.Tensor]:  # fmt: skip
    """One full-quality sampling run, as KSampler does it, and what was measured beside it. earlier: the
    profile to which it will be added, or None."""
    start = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
    noise = comfy.sample.prepare_noise(start, seed, latent_image.get("batch_index"))
    identity = identity_of(model)
    settings = Settings(tuple(noise.shape[1:]), sampler_name, scheduler, cfg, denoise)
    made: list[tuple[CalibrationRun, list[float]]] = []

    def make_run(sampling: Sampling, blocks: Blocks) -> CalibrationRun:
        remark = remark_on(sampling.sampler, None)
        if remark is not None:
            tell(remark)
        run, levels = CalibrationRun(sampling.steps, StackTap(blocks)), np.array(sampling.sigmas)
        if not fall(levels):
            raise ValueError(
                f"steps: with scheduler {scheduler} and denoise {denoise:g}, {steps} steps repeat a noise "
                "level, so some of them do nothing. Take fewer steps, another scheduler, or a larger denoise."
            )
        if earlier is not None:
            earlier.check_takes(identity, settings, levels, run.ages)
        made.append((run, sampling.sigmas))
        return run

    latent = comfy.sample.sample(
        patched(model, make_run),
        noise,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        start,
        denoise=denoise,
        noise_mask=latent_image.get("noise_mask"),
        callback=callback,
        seed=seed,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
    )
    run, sigmas = made[0]
    return run.profile(
        identity,
        settings,
        sigmas,
        timesteps_of(model, sigmas[:-1]),
        library.provenance(),
    ), latent
