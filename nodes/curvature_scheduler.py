"""Node: decides how much is reused and by which measure the steps are chosen."""

from comfy_api.latest import io

from ..omnicache.plan import Budget, Constraints, Parts
from ..omnicache.profile import MAX_STEPS, Profile
from ..omnicache.schedule import Cost, Schedule, parse_overrides
from . import library, plot
from .messages import tell
from .profile_inputs import chosen_profile, profile_inputs
from .sockets import CATEGORY, ScheduleSocket

COSTS: tuple[Cost, ...] = ("reach", "curvature", "even")
# Of 0.1.0. On no model did they choose better steps than reach does now (docs/experiments.md, "Plans").
RETIRED_COSTS = ("forecast error", "corrected error", "error")


class CurvatureScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CurvatureScheduler",
            display_name="Curvature Scheduler",
            category=CATEGORY,
            description="Chooses which sampling steps reuse the cache instead of computing the model. The "
            "choice is made over the whole trajectory before sampling starts, and anew for each sampler's "
            "own noise levels; the plot shows it for the settings of the calibration.",
            inputs=[
                *profile_inputs(),
                io.Combo.Input(
                    "budget_kind",
                    options=["reuse ratio", "speed-up", "full steps"],
                    default="reuse ratio",
                    tooltip="What budget means: the share of steps reused, the wanted wall-clock speed-up, "
                    "or the number of steps computed in full.",
                ),
                io.Float.Input(
                    "budget",
                    default=0.5,
                    min=0.0,
                    max=1000.0,
                    step=0.05,
                    round=0.001,
                    tooltip="How much to reuse. Reuse ratio: 0 to 1, where 0.5 is about 1.9x and 0.6 about "
                    "2.4x. Speed-up: 1 or more; 1.9 means 1.9x. Full steps: a whole number below the "
                    "sampler's steps. A ratio of 0 reuses nothing.",
                ),
                io.Combo.Input(
                    "cost",
                    options=list(COSTS),
                    default="reach",
                    tooltip="By what the reused steps are chosen. Reach: how far they lie from the "
                    "computed steps around them in noise level; needs no profile. Curvature: turning "
                    "angle of the trajectory, as in the paper; needs a profile. Even: spread evenly; "
                    "needs none, and is worse.",
                ),
                io.Int.Input(
                    "max_consecutive",
                    default=0,
                    min=0,
                    max=4,
                    tooltip="Longest run of reused steps. 0: the shortest, up to 4, that leaves the budget a "
                    "choice. 1 to 4: so many; 2 is the paper's, 1 is safer. It bounds the budget "
                    "too: 1 allows about half of the steps, 2 two thirds.",
                ),
                io.Int.Input(
                    "protect_first",
                    default=2,
                    min=2,
                    max=100,
                    tooltip="Steps computed in full at the start, at least 2. More keeps the composition "
                    "(for video: the motion) closer to the uncached one.",
                ),
                io.Int.Input(
                    "protect_last",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="Steps computed in full at the end. 0 leaves it to the cost, which reuses the "
                    "last step where few are computed, or where it is short (schedulers karras, beta). More "
                    "keeps fine detail, which nothing repairs.",
                ),
                io.String.Input(
                    "overrides",
                    default="",
                    tooltip="Steps forced by hand, counted from 0 in the sampler's steps: '5 full, 10-12 "
                    "reuse'. The budget is met around them. A click on a step of the plot writes here. "
                    "Empty: none.",
                ),
                io.String.Input(
                    "parts",
                    default="all",
                    optional=True,
                    tooltip="What of the model a reused step reuses: 'all', or some of attention, "
                    "cross-attention and mlp, each with the blocks it is reused in if not in all, counted "
                    "from 0: 'attention, mlp 4-20'. Other than all needs granularity branch on OmniCache "
                    "Model Patch.",
                ),
            ],
            outputs=[
                ScheduleSocket.Output(
                    "schedule",
                    display_name="schedule",
                    tooltip="Budget, limits and profile, from which the plan is made anew for each sampling "
                    "run. Goes to OmniCache Model Patch.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            # Makes the id part of the host's cache key, which the hidden input alone does not: else a copy of
            # this node would get the schedule of the first, whose plot then follows the steps of both. A
            # prompt that changes nothing still runs nothing again.
            not_idempotent=True,
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, cost) -> bool | str:
        """In the place of the host's check of the menu, which workflows of 0.1.0 would not pass."""
        known = (*COSTS, *RETIRED_COSTS)
        return cost in known or f"cost: {cost!r} is not one of {', '.join(COSTS)}."

    @classmethod
    def fingerprint_inputs(cls, saved_profile, **_) -> str:
        return library.fingerprint(saved_profile)

    @classmethod
    def execute(
        cls,
        saved_profile,
        budget_kind,
        budget,
        cost,
        max_consecutive,
        protect_first,
        protect_last,
        overrides,
        profile: Profile | None = None,
        parts="all",
    ) -> io.NodeOutput:
        if cost in RETIRED_COSTS:
            tell(
                f"cost: {cost!r} of version 0.1.0 is now 'reach', which chooses better steps without a "
                "profile"
            )
            cost = "reach"
        profile = chosen_profile(profile, saved_profile)
        node = cls.hidden.unique_id if cls.hidden is not None else None
        full, reuse = parse_overrides(overrides)
        constraints = Constraints(max_consecutive, protect_first, protect_last, full, reuse)
        schedule = Schedule(Budget(budget_kind, budget), cost, constraints, profile, Parts.parse(parts), node)
        if profile is None:
            return io.NodeOutput(schedule)
        plan, note = None, None
        try:
            plan = schedule.plan_for(profile.schedule)
        except ValueError as error:
            # Steps are counted in the sampler's, which may be more or fewer; it refuses what it cannot meet.
            counts_steps = budget_kind == "full steps" or overrides.strip()
            if not counts_steps and not schedule.could_be_met(MAX_STEPS):
                raise
            note = f"Not planned for the {profile.steps} steps of the calibration. {error}"
        payload = plot.payload(profile, schedule, plan, overrides, note, saved_profile)
        return io.NodeOutput(schedule, ui=payload)
