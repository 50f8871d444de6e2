"""Node: a published caching method in the place of the pack's own plan, to compare them."""

from comfy_api.latest import io

from ..omnicache.profile import Profile
from ..omnicache.rivals import RIVALS, GivenSchedule
from . import library
from .profile_inputs import chosen_profile, profile_inputs
from .sockets import CATEGORY, ScheduleSocket


class RivalSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RivalSchedule",
            display_name="Rival Schedule (for comparison)",
            category=CATEGORY,
            description="Reuses the steps and the parts of the model that another published method would, by "
            "its own rule. To compare with: for generating, Curvature Scheduler is the better choice.",
            inputs=[
                *profile_inputs(" Magcache and lemica-local are measured by it."),
                io.Combo.Input(
                    "method",
                    options=list(RIVALS),
                    default="fora",
                    tooltip="FORA, Delta-DiT, T-GATE, DeepCache: a cadence "
                    "for all blocks, a span of them, attention, or all but the outer blocks. TaylorSeer, "
                    "HiCache: a cadence, with a forecast of order 1 or 2 between. PAB: attention, and "
                    "cross-attention for longer, in the middle of the noise. TeaCache, AdaCache: decide "
                    "while sampling, by how much a layer's input or output changes; MoReg also by the "
                    "motion in a video, and on a picture it is plain AdaCache. All these need granularity "
                    "branch on OmniCache Model Patch. Even: evenly spread full steps. MagCache, "
                    "LeMiCa-local: chosen from measured magnitudes or errors; these two need a profile.",
                ),
                io.Float.Input(
                    "knob",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.05,
                    round=0.001,
                    tooltip="The method's own setting; -1 takes the published one. FORA, Delta-DiT, "
                    "DeepCache: every how many steps one is full (3, 2, 3). MagCache: longest run of reused "
                    "steps (2). T-GATE: the gate as a share of the steps (0.6). Even, LeMiCa-local: share of "
                    "full steps (0.5). TaylorSeer, HiCache: every how many steps one is full (6). PAB: every "
                    "how many steps attention is computed (2). TeaCache: how much change is reused over "
                    "(0.25). AdaCache: factor on its thresholds (1); larger reuses more, as with TeaCache.",
                ),
                io.Int.Input(
                    "full_steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Above 0: in place of the knob, the setting whose plan has most nearly so many "
                    "full steps. Methods that reuse only a part of the model save less with as many. Not for "
                    "TeaCache and AdaCache, which decide while sampling. 0: the knob counts.",
                ),
            ],
            outputs=[
                ScheduleSocket.Output(
                    "schedule",
                    display_name="schedule",
                    tooltip="The method's plan, made anew for each sampling run. Goes to OmniCache Model "
                    "Patch, which corrects nothing if nothing is connected to its correction, but for the "
                    "forecasts of TaylorSeer and HiCache.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, saved_profile, **_) -> str:
        return library.fingerprint(saved_profile)

    @classmethod
    def execute(
        cls, saved_profile, method, knob, full_steps, profile: Profile | None = None
    ) -> io.NodeOutput:
        profile = chosen_profile(profile, saved_profile)
        return io.NodeOutput(GivenSchedule(method, None if knob == -1 else knob, full_steps or None, profile))
