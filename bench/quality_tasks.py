"""What bench/quality.py measures: models, settings, methods and budgets, and the tasks that they make."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".host" / "quality"
ROWS = FOLDER / "rows.jsonl"
# In the order of their importance: a run that is stopped early has the first of them.
SETTINGS = (
    ("euler", 50), ("dpmpp_2m", 50), ("euler", 30), ("euler", 20), ("res_multistep", 50), ("uni_pc", 50),
    ("heun", 50), ("dpmpp_2m", 30), ("dpmpp_2m", 20), ("res_multistep", 30), ("uni_pc", 30), ("heun", 30),
    ("res_multistep", 20), ("uni_pc", 20), ("heun", 20),
)  # fmt: skip
FEW_STEPS = (("euler", 16), ("euler", 12), ("euler", 8))
OF_DIT = (("euler", 50), ("dpmpp_2m", 50), ("euler", 30), ("euler", 20))
# Share of the steps to reuse, by their number; few-step models have little to give away. OmniCacheAuto takes
# half, but of 8.
BUDGETS = {16: (5 / 16, 0.5), 12: (3 / 12, 0.5), 8: (2 / 8, 0.5)}
USUAL_BUDGETS = (0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Kind:
    """cost: of one sample's step, as a multiple of the image model's."""

    settings: tuple[tuple[str, int], ...]
    cost: float


MODELS = {
    "image": Kind(SETTINGS, 1.0),
    "image_fewstep": Kind(FEW_STEPS, 0.5),
    "image_dit": Kind(OF_DIT, 0.5),
    "video": Kind(SETTINGS, 10.0),
}
SEEDS = (1, 2, 3)
SAMPLES = 22  # of each seed: 66 in all
TOGETHER = 32  # samples evaluated together, at most
METHODS = (
    "uncached", "omnicache", "fewer-steps", "even", "omnicache-paper", "omnicache-no-repay", "lemica",
    "taylorseer-2", "taylorseer-1", "teacache", "magcache", "fora", "hicache-2", "hicache-1", "lemica-local",
    "adacache", "adacache-moreg", "pab", "delta-dit", "deepcache", "t-gate", "omnicache-stack",
    "uncached-bf16", "lazycache", "easycache",
)  # fmt: skip
OF_VIDEOS = ("adacache-moreg",)
# What bench/teacache_fit.py and bench/lemica_errors.py did not measure on the class-conditional model, and
# what needs a number format that it is not loaded in.
UNFITTED = ("teacache", "adacache", "lemica", "uncached-bf16", "lazycache", "easycache")
WITHOUT_BUDGET = ("uncached", "uncached-bf16")
IN_BF16 = ("uncached-bf16", "lazycache", "easycache")
PUBLISHED = 0.0  # in the place of a budget: the setting that the method's authors recommend
WITHOUT_PUBLISHED = ("fewer-steps", "even", "lemica", "lemica-local")  # or not of others


def has_published_setting(method: str) -> bool:
    return method not in (*WITHOUT_BUDGET, *WITHOUT_PUBLISHED) and not method.startswith("omnicache")


@dataclass(frozen=True)
class Task:
    """One arm with one seed. reuse: wanted share of the steps reused; of a rival, also PUBLISHED."""

    model: str
    sampler: str
    steps: int
    reuse: float
    method: str
    seed: int
    samples: int

    @property
    def key(self) -> str:
        return "_".join(str(getattr(self, field.name)) for field in fields(self))

    @property
    def label(self) -> str:
        """In words."""
        published = " published" if has_published_setting(self.method) else ""
        budget = f" {self.reuse:.0%}" if self.reuse else published
        return f"{self.model} {self.sampler} {self.steps} steps, seed {self.seed}: {self.method}{budget}"

    @property
    def full_steps(self) -> int:
        return self.steps - round(self.reuse * self.steps)

    @property
    def reference(self) -> "Task":
        """The uncached arm that it is compared with: the same model in the same number format."""
        method = "uncached-bf16" if self.method in IN_BF16 else "uncached"
        return Task(self.model, self.sampler, self.steps, 0.0, method, self.seed, self.samples)

    @property
    def pictures(self) -> Path:
        """Where those of an uncached arm are kept."""
        return FOLDER / f"{self.key}.pictures.npy"

    @property
    def work(self) -> float:
        """Expected time, in units of one step of one picture."""
        evaluations = 2 if self.sampler == "heun" else 1
        return MODELS[self.model].cost * self.samples * self.full_steps * evaluations


def tasks(
    models: Iterable[str], samplers: Collection[str], steps: Collection[int], methods: Sequence[str],
    samples: int, seeds: Iterable[int] = SEEDS,
) -> list[Task]:  # fmt: skip
    """All arms, the most important first: settings, then seeds, then models, then budgets."""
    wanted = set(methods)
    # Their references come before them; without these there is nothing to compare with.
    wanted |= {"uncached"} if wanted - set(IN_BF16) else set()
    wanted |= {"uncached-bf16"} if wanted & set(IN_BF16) else set()
    settings = [each for each in (*FEW_STEPS, *SETTINGS) if each[0] in samplers and each[1] in steps]
    ordered = []
    for setting, seed, model in itertools.product(settings, seeds, models):
        if setting not in MODELS[model].settings:
            continue
        for method in (method for method in METHODS if method in wanted):
            if (method in OF_VIDEOS and model != "video") or (method in UNFITTED and model == "image_dit"):
                continue
            budgets = _budgets(method, setting[1])
            ordered += [Task(model, *setting, reuse, method, seed, samples) for reuse in budgets]
    return ordered


def _budgets(method: str, steps: int) -> tuple[float, ...]:
    if method in WITHOUT_BUDGET:
        return (0.0,)
    return (*BUDGETS.get(steps, USUAL_BUDGETS), *((PUBLISHED,) if has_published_setting(method) else ()))
