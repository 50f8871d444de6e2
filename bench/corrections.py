"""What each correction makes of reused steps on the demo models, with prompts and seeds that no calibration
saw, beside plain reuse and fewer plain steps. Prints, and writes docs/corrections_image.md and _video.md.

    .host/venv/bin/python bench/corrections.py [image] [video]
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from command_line import models_asked_for
from tables import best_in_bold, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

BATCH = {"image": 6, "video": 1}
PROMPTS = {
    "image": ("fox on blue", "burger on teal"),
    "video": ("penguin bouncing on orange", "frog growing on purple"),
}
FIRST_SEED = 101
PLAIN = "fewer plain steps"


@dataclass(frozen=True)
class Setting:
    sampler: str
    steps: int
    reuse: float

    @property
    def label(self) -> str:
        return f"{self.sampler} {self.steps}, {self.reuse:.0%}"


@dataclass(frozen=True)
class Arm:
    label: str
    mode: str
    order: int = 1
    cost: str = "reach"
    filter: str = "off"


SETTINGS = (
    Setting("euler", 50, 0.5),
    Setting("euler", 50, 0.6),
    Setting("euler", 30, 0.5),
    Setting("euler", 30, 0.6),
    Setting("dpmpp_2m", 24, 0.5),
    Setting("res_multistep", 24, 0.5),
)
ARMS = (
    Arm("forecast, order 2", "forecast", 2),
    Arm("forecast, order 1", "forecast", 1),
    Arm("age-aware", "age-aware"),
    Arm("per-band", "per-band"),
    Arm("paper (curvature, low-high)", "paper", cost="curvature", filter="low-high"),
    Arm("off (plain reuse)", "off"),
)


def measure(demo, prompt: str, setting: Setting, seed: int) -> dict[str, float]:
    """PSNR in dB of each arm to the uncached pictures of the same seed. demo: a DemoModel."""
    from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
    from comfyui_omnicache.omnicache.correction import Correction
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.schedule import Schedule
    from demo_model import psnr

    prompts = [prompt] * BATCH[demo.kind]

    def pictures(model, steps: int):
        return demo.decode(demo.latents(model, setting.sampler, steps, prompts, seed=seed))

    plain = pictures(demo.model, setting.steps)
    fewer = round(setting.steps * (1 - setting.reuse))
    found = {PLAIN: psnr(pictures(demo.model, fewer), plain)}
    for arm in ARMS:
        schedule = Schedule(Budget("reuse ratio", setting.reuse), arm.cost, profile=demo.profile)
        correction = Correction(arm.mode, arm.filter, order=arm.order)
        patch = OmniCacheModelPatch.execute(demo.model, schedule, correction).args[0]
        found[arm.label] = psnr(pictures(patch, setting.steps), plain)
    return found


def document(kind: str, prompts: int, found: dict[Setting, list[dict[str, float]]]) -> str:
    count = prompts * BATCH[kind]
    means = {
        name: [statistics.mean(run[name] for run in runs) for runs in found.values()]
        for name in (*(arm.label for arm in ARMS), PLAIN)
    }
    lines = [
        f"# Corrections on the {kind} demo model",
        "",
        f"PSNR in dB to the uncached result of the same seed, mean of {count} {kind}s of {prompts} "
        "prompt(s), cfg 2.5. The shipped profile (euler, 50 steps, other prompts and seeds); cost forecast "
        "error unless said otherwise. The columns name the sampler, its steps and the share of them that is "
        f"reused. Made by `.host/venv/bin/python bench/corrections.py {kind}`.",
        "",
        *table(["correction", *(setting.label for setting in found)], best_in_bold(means)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    asked = models_asked_for(__doc__, BATCH)
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    for kind in asked:
        demo, found = DemoModel(kind), {}
        for number, prompt in enumerate(PROMPTS[kind]):
            for setting in SETTINGS:
                run = measure(demo, prompt, setting, FIRST_SEED + number)
                found.setdefault(setting, []).append(run)
                print(
                    prompt, setting.label, {name: round(value, 2) for name, value in run.items()}, flush=True
                )
            text = document(kind, number + 1, found)
            (ROOT / "docs" / f"corrections_{kind}.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
