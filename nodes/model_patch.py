"""Node: puts a schedule and a correction on a model."""

import numpy as np
from comfy_api.latest import io

from ..omnicache.correction import Correction, Corrector
from ..omnicache.families import UnknownModel, family_of
from ..omnicache.outlook import Outlook
from ..omnicache.run import CacheRun
from ..omnicache.schedule import Schedule
from ..omnicache.tap import BlockTap
from .host import patched, tell
from .identity import check_fits
from .sockets import CATEGORY, CorrectionSocket, ScheduleSocket


class OmniCacheModelPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheModelPatch",
            display_name="OmniCache Model Patch",
            category=CATEGORY,
            description="Makes a diffusion transformer faster by reusing its blocks' output at the steps "
            "the schedule chose. Put it last before the sampler, after LoRAs and model sampling nodes; use "
            "any sampler node.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to speed up: any diffusion transformer "
                    "that the host knows (a U-Net is refused).",
                ),
                ScheduleSocket.Input("schedule", tooltip="From Curvature Scheduler."),
                CorrectionSocket.Input(
                    "correction", optional=True, tooltip="From Noise Corrector. Nothing connected: age-aware."
                ),
            ],
            outputs=[
                io.Model.Output(
                    "patched",
                    display_name="model",
                    tooltip="Goes to the sampler. The model that came in stays as it was. After each run "
                    "the log says what was computed and what reused.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, schedule: Schedule, correction: Correction | None = None) -> io.NodeOutput:
        try:
            family_of(model.model.diffusion_model)
        except UnknownModel as unknown:
            tell(str(unknown))
            return io.NodeOutput(model)
        correction = correction or Correction()
        if schedule.profile is not None:
            remark = check_fits(schedule.profile, model)
            if remark is not None:
                tell(f"{remark}; the result may be less exact")

        def make_run(executing_model, sigmas: list[float], tap: BlockTap) -> CacheRun:
            switch = executing_model.get_model_object("model_sampling").percent_to_sigma(
                correction.switch_point
            )
            outlook = Outlook(schedule.profile, np.array(sigmas)) if schedule.profile is not None else None
            return CacheRun(
                schedule.plan_for(np.array(sigmas)),
                Corrector(correction, sigmas, outlook, float(switch)),
                tap,
            )

        return io.NodeOutput(patched(model, make_run))
