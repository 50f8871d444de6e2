"""What bench/paper.py measures: models, arms and trajectories, and in which order."""

from dataclasses import dataclass
from pathlib import Path

from demo_names import CFG, kind_of
from paper_measures import part_of_run

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".host" / "paper"
ROWS = FOLDER / "rows.jsonl"


@dataclass(frozen=True)
class Setting:
    """A demo model and how it is sampled: with euler. name: as bench/demo_model.py has it. samples: of each
    arm. draws: of random plans, each with few_samples."""

    name: str
    steps: int
    samples: int
    draws: int
    few_samples: int

    @property
    def kind(self) -> str:
        return kind_of(self.name)

    @property
    def cfg(self) -> float:
        return CFG[self.name]


MODELS = {
    "image": Setting("image", 50, 48, 20, 12),
    "few-step": Setting("image_fewstep", 16, 48, 0, 0),
    "video": Setting("video", 50, 4, 4, 4),
}
GROUPS = ("prompts", "same prompt", "no guidance")
TRAJECTORIES = {"image": 24, "video": 4, "few-step": 24}
SLOW, FAST = 0.5, 0.6
FEW_STEP_REUSED = 5  # of 16: the paper's Table 4
ABLATION = ("off", "paper", "paper+filter")
STATISTICS = ("noise", "data", "speed")
PARTS = ("early-2", "late-2", "spread-2")
DENSE_PARTS = ("early-3", "late-3")


@dataclass(frozen=True)
class Trajectories:
    """Uncached runs of one group: of several prompts, of one prompt, or of several with cfg 1."""

    model: str
    group: str
    samples: int

    @property
    def key(self) -> str:
        return f"{self.model} trajectories, {self.group}"


@dataclass(frozen=True)
class Statistics:
    """What is measured of a model itself: see paper_arms.measure_statistics."""

    model: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.model} {self.name}"


@dataclass(frozen=True)
class Arm:
    """One way of sampling. plan: "uncached", "fewer" (steps), a cost of a schedule, or one of
    paper_arms.schedule_of's own. mode: of the correction."""

    model: str
    plan: str
    reused: int
    mode: str
    samples: int

    @property
    def key(self) -> str:
        return f"{self.model}_{self.plan}_{self.reused}_{self.mode}_{self.samples}".replace(" ", "-")

    @property
    def sampled_steps(self) -> int:
        steps = MODELS[self.model].steps
        return steps - self.reused if self.plan == "fewer" else steps


def budgets(model: str) -> tuple[int, ...]:
    """Reused steps of the slow and the fast setting; of the few-step model those of Table 4."""
    steps = MODELS[model].steps
    return (FEW_STEP_REUSED,) if model == "few-step" else (round(SLOW * steps), round(FAST * steps))


def ablation(model: str) -> list[Arm]:
    """Table 4 on the paper's plan and the even one, the pack's default, and fewer plain steps."""
    samples, found = MODELS[model].samples, []
    for reused in budgets(model):
        found += [
            Arm(model, plan, reused, mode, samples) for plan in ("curvature", "even") for mode in ABLATION
        ]
        found += [Arm(model, "curvature", reused, "age-aware", samples)]
        found += [Arm(model, "reach", reused, "default", samples)]
        found += [Arm(model, "fewer", reused, "off", samples)]
    return found


def parts(model: str) -> list[Arm]:
    """As many reused steps early, late and spread; and one reused step where the paper's Fig. 3 has it."""
    setting = MODELS[model]
    found = [] if model == "few-step" else [part_arm(model, part) for part in PARTS]
    # x12 to x11 and x4 to x3 of its 16 steps.
    singles = (setting.steps // 4, 3 * setting.steps // 4)
    return found + [Arm(model, f"single-{step}", 1, "off", setting.samples) for step in singles]


def part_arm(model: str, part: str) -> Arm:
    """part: such as "early-2", see paper_measures.part_of_run."""
    name, gap = part.split("-")
    reused = part_of_run(name, int(gap), MODELS[model].steps)
    return Arm(model, part, len(reused), "off", MODELS[model].samples)


def plans(model: str) -> list[Arm]:
    """Plain reuse by the least curvature beside the most, the even plan and random ones."""
    setting = MODELS[model]
    if not setting.draws:
        return []
    names = (
        "curvature",
        "menger",
        "curviest",
        "even",
        *(f"random-{number}" for number in range(setting.draws)),
    )
    return [Arm(model, name, budgets(model)[0], "off", setting.few_samples) for name in names]


def uncached(model: str, samples: int) -> Arm:
    return Arm(model, "uncached", 0, "off", samples)


def tasks() -> list[Trajectories | Statistics | Arm]:
    """All measurements, each once; the most important first, and references before what is compared with
    them."""
    found: list[Trajectories | Statistics | Arm] = []
    for model, setting in MODELS.items():
        # The few-step model is distilled to need no guidance, and is sampled without it.
        groups = GROUPS[:2] if model == "few-step" else GROUPS
        found += [Trajectories(model, group, TRAJECTORIES[model]) for group in groups]
        found += [Statistics(model, name) for name in STATISTICS]
        found += [uncached(model, setting.samples), *ablation(model), *parts(model)]
    for model, setting in MODELS.items():
        if setting.draws:
            found += [uncached(model, setting.few_samples), *plans(model)]
            found += [part_arm(model, part) for part in DENSE_PARTS]
    return list(dict.fromkeys(found))
