"""What bench/studies.py measures: what a case is, and which cases each study has."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".host" / "studies"
ROWS = FOLDER / "rows.jsonl"
MODELS = ("image", "video")

# Of no calibration, and not those that the defaults were chosen with (bench/corrections.py).
PROMPTS = {
    "image": ("octopus on red", "rocket on purple", "cactus on orange", "donut on green", "cat on teal",
              "heart on blue"),
    "video": ("car spinning on green", "apple growing on yellow"),
}  # fmt: skip
SEED = 501
CFG = 2.5

OTHER_SHAPE = {"image": (16, 12, 12), "video": (16, 8, 12, 16)}

# What is done to the noise of the lanes, in the study "guidance".
Lanes = Literal["", "after guidance", "each its own gamma", "gamma of the guided noise", "guided output"]


@dataclass(frozen=True)
class Calibration:
    """How a profile is calibrated. prompt: 0 to 2 of CALIBRATION_PROMPTS; -1: the measured prompts with their
    own seed. shape: of one latent, if not the model's own. over_time: bands over time, height and width."""

    prompt: int = 0
    samples: int = 1
    sampler: str = "euler"
    steps: int = 50
    scheduler: str = "simple"
    shape: tuple[int, ...] = ()
    over_time: bool = False


CALIBRATION_PROMPTS = {
    "image": ("pizza on grey", "panda on yellow", "balloon on teal"),
    "video": ("heart sliding on grey", "rocket bouncing on yellow", "cat growing on teal"),
}
CALIBRATION_SEED = 71


@dataclass(frozen=True)
class Case:
    """One way to sample. profile: None is the one that comes with the pack; the costs "reach" and "even" use
    none. max_consecutive 0: chosen by the plan. over_time: filters and bands over time, height and width."""

    model: str
    sampler: str = "euler"
    steps: int = 50
    reuse: float = 0.5
    mode: str = "forecast"
    order: int = 2
    filter: str = "off"
    switch_point: float = 0.5
    cutoff: float = 0.25
    cost: str = "reach"
    max_consecutive: int = 0
    protect_first: int = 2
    protect_last: int = 1
    granularity: str = "stack"
    scheduler: str = "simple"
    shape: tuple[int, ...] = ()
    profile: Calibration | None = None
    over_time: bool = False
    lanes: Lanes = ""

    @property
    def key(self) -> str:
        """The model, and what differs from the defaults."""
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)[1:]
            if getattr(self, field.name) != field.default
        }
        if self.profile is not None:
            changed["profile"] = asdict(self.profile)
        return f"{self.model} {json.dumps(changed)}"

    def outcome(self, plan: str) -> str:
        """Names what it gives: the same for cases whose constraints, budget or profile led to the same plan,
        where nothing else depends on them."""
        default = Case(self.model)
        names = ("reuse", "cost", "max_consecutive", "protect_first", "protect_last")
        same = replace(self, **{name: getattr(default, name) for name in names})
        return f"{replace(same, profile=None).key if self.mode == 'forecast' else same.key} {plan}"

    @property
    def reference(self) -> "Case":
        """The uncached run that it is compared with."""
        return Case(
            self.model, self.sampler, self.steps, 0.0, scheduler=self.scheduler, shape=self.shape, cost="even"
        )


# A video takes as long as ten pictures, so the video model has fewer of these.
MAIN = (("euler", 50, 0.5), ("euler", 50, 0.6))
MULTISTEP = ("dpmpp_2m", 25, 0.5)
CONSTRAINED = (("euler", 50), ("euler", 30), ("dpmpp_2m", 25))
TOGETHER = ((3, 3), (4, 3), (3, 4))  # protect_first, max_consecutive
MODES = ("paper", "age-aware")


def filters(model: str) -> Iterator[Case]:
    """The paper's pair of filters, its switch point and cutoff, beside one filter, none and bands."""
    changes = [{"filter": name} for name in ("off", "low-high", "low", "high")]
    changes += [{"filter": "low-high", "switch_point": value} for value in (0.3, 0.7)]
    names = ("low-high", "low", "high") if model == "image" else ("low-high",)
    changes += [{"filter": name, "cutoff": value} for name in names for value in (0.15, 0.35)]
    for sampler, steps, reuse in (MAIN[1], MAIN[0], MULTISTEP) if model == "image" else MAIN[1:]:
        case = Case(model, sampler, steps, reuse)
        yield from (replace(case, mode=mode, **change) for change in changes for mode in MODES)
        yield from (replace(case, mode="per-band"), case, replace(case, mode="off"))
        if model == "video":
            aware = replace(case, mode="age-aware", over_time=True)
            yield from (replace(aware, filter=name) for name in ("low-high", "low", "high"))
            for over_time in (False, True):
                own = Calibration(samples=2, over_time=over_time)
                yield replace(case, mode="per-band", profile=own, over_time=over_time)


def granularity(model: str) -> Iterator[Case]:
    for sampler, steps, reuse in (*MAIN, MULTISTEP) if model == "image" else MAIN:
        for name in ("stack", "branch"):
            yield Case(model, sampler, steps, reuse, granularity=name)


def guidance(model: str) -> Iterator[Case]:
    """The noise of each lane, or of what guidance makes of them."""
    for sampler, steps, reuse in (*MAIN, MULTISTEP) if model == "image" else MAIN[1:]:
        case = Case(model, sampler, steps, reuse)
        yield from (case, replace(case, lanes="guided output"))
        aware = replace(case, mode="age-aware", profile=Calibration())
        names = ("", "after guidance", "each its own gamma", "gamma of the guided noise")
        yield from (replace(aware, lanes=name) for name in names)


def constraints(model: str) -> Iterator[Case]:
    """protect_first, protect_last and max_consecutive, one at a time, and protect_first with the room that
    longer runs give; with order 1 at 50 Euler steps, and max_consecutive elsewhere."""
    longest = [{"max_consecutive": value} for value in (0, 1, 2, 3, 4, 6)]
    protected = [{"protect_first": value} for value in (3, 4, 5, 6)]
    protected += [{"protect_last": value} for value in (0, 2, 3)]
    protected += [{"protect_first": value, "max_consecutive": longest} for value, longest in TOGETHER]
    for (sampler, steps), order in itertools.product(CONSTRAINED, (2, 1)):
        is_main = (sampler, steps) == CONSTRAINED[0]
        changes = longest if order == 1 and (model == "video" or not is_main) else longest + protected
        for reuse in (0.5, 0.6, 0.7) if model == "image" else (0.6, 0.5):
            if model == "video" and order == 1 and not (is_main and reuse == 0.6):
                continue
            case = Case(model, sampler, steps, reuse, order=order)
            yield from (replace(case, **change) for change in changes)


# Budgets beside those of the other studies, near what runs of 2 allow.
NEAR_THE_MOST = (
    ("euler", 50, 0.62), ("euler", 50, 0.64), ("euler", 40, 0.6), ("euler", 20, 0.6), ("heun", 25, 0.6),
    ("res_multistep", 25, 0.6),
)  # fmt: skip
# Where single reused steps leave a choice.
FEW = tuple((*setting, 0.4) for setting in (
    ("euler", 20), ("euler", 24), ("euler", 30), ("euler", 50), ("heun", 24), ("dpmpp_2m", 24),
    ("dpmpp_2m", 30), ("res_multistep", 30),
))  # fmt: skip


def room(model: str) -> Iterator[Case]:
    """Runs just long enough for the budget, and longer ones."""
    for settings, longest in ((NEAR_THE_MOST, (2, 3)), (FEW, (1, 2))):
        for setting, most in itertools.product(settings, longest):
            yield Case(model, *setting, max_consecutive=most)


def most_reused(case: Case) -> int:
    """How many steps could be reused with its constraints."""
    free = case.steps - case.protect_first - case.protect_last
    return free - free // (case.max_consecutive + 1)


# What a profile is used for, and the profiles beside the matching one.
Transfers = dict[str, tuple[dict, dict[str, Calibration]]]


def transfers(model: str) -> Transfers:
    """By what is sampled: how it differs from the default case, and profiles by their names."""
    euler, other = Calibration(), OTHER_SHAPE[model]
    found: Transfers = {
        "euler, 50 steps": (
            {},
            {
                "one prompt": euler,
                "another prompt": Calibration(prompt=1),
                "a third prompt": Calibration(prompt=2),
                "one prompt, 4 samples": Calibration(samples=4),
                "the measured prompts themselves": Calibration(-1),
                "30 steps": Calibration(steps=30),
                "25 steps": Calibration(steps=25),
                "20 steps": Calibration(steps=20),
                "dpmpp_2m, 25 steps": Calibration(sampler="dpmpp_2m", steps=25),
            },
        )
    }
    for steps in (30, 25, 20):
        found[f"euler, {steps} steps"] = (
            {"steps": steps},
            {"own": Calibration(steps=steps), "50 steps": euler},
        )
    for sampler in ("dpmpp_2m", "res_multistep", "heun"):
        found[f"{sampler}, 25 steps"] = (
            {"sampler": sampler, "steps": 25},
            {
                "own": Calibration(sampler=sampler, steps=25),
                "euler, 25 steps": Calibration(steps=25),
                "euler, 50 steps": euler,
            },
        )
    for name in ("normal", "karras"):
        found[f"scheduler {name}"] = (
            {"scheduler": name},
            {"own": Calibration(scheduler=name), "simple": euler},
        )
    found["another size"] = (
        {"shape": other},
        {"own": Calibration(shape=other), "the model's own size": euler},
    )
    if model == "video":
        for name in ("euler, 25 steps", "res_multistep, 25 steps", "scheduler normal"):
            del found[name]
    return found


def transfer_cases(model: str, target: str, reuse: float, mode: str = "forecast") -> dict[str, Case]:
    """By the name of the profile."""
    changes, profiles = transfers(model)[target]
    case = Case(model, reuse=reuse, mode=mode, **changes)
    found = {name: replace(case, profile=profile) for name, profile in profiles.items()}
    even = replace(case, cost="even")
    found |= {"that of the pack": case, "none, cost reach": replace(case, cost="reach")}
    found |= {"none, cost even": even}
    return found | {"none, cost even, protect_last 3": replace(even, protect_last=3)}


def transfer(model: str) -> Iterator[Case]:
    """Profiles used where they were not calibrated, beside the matching one and none."""
    for reuse, target in itertools.product((0.5, 0.6) if model == "image" else (0.6,), transfers(model)):
        yield from transfer_cases(model, target, reuse).values()


def transfer_aware(model: str) -> Iterator[Case]:
    """The same with age-aware, which takes its gammas from the profile too."""
    for target in transfers(model):
        yield from transfer_cases(model, target, 0.6, "age-aware").values()


STUDIES = {
    "filters": filters, "granularity": granularity, "guidance": guidance, "constraints": constraints,
    "room": room, "transfer": transfer, "transfer-age-aware": transfer_aware,
}  # fmt: skip


def cases(models: Iterable[str], studies: Iterable[str]) -> list[Case]:
    """Every case once."""
    return list(dict.fromkeys(case for model in models for name in studies for case in STUDIES[name](model)))
