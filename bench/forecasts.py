"""On which axis a forecast goes, of which order, and how much of a parabola's bend to keep: other weights of
the last full steps in the place of the pack's, on the pack's own plans. Writes docs/forecasts.md.

    .host/venv/bin/python bench/forecasts.py [image] [image_dit] [video]
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import models_asked_for
from tables import best_in_bold, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

STEPS, BUDGETS = (50, 30, 20), (0.5, 0.6, 0.7)
SAMPLES = {"image": 8, "image_dit": 8, "video": 2}
SEED = 910_003  # of no arm of bench/quality.py


@dataclass(frozen=True)
class Rule:
    """axis: what is taken as the distance between steps. strength: of what is added to the newest cache.
    steady: see forecast.steadied; infinite for the parabola itself. oldest: age of a cache, in steps, from
    which on a line takes the parabola's place."""

    axis: str
    order: int
    steady: float = float("inf")
    strength: float = 1.0
    oldest: int = 1000


RULES = {
    "plain reuse": Rule("log-SNR", 1, strength=0.0),
    "line over sigma": Rule("sigma", 1),
    "line over the step number": Rule("step", 1),
    "line over log-SNR": Rule("log-SNR", 1),
    "parabola over sigma": Rule("sigma", 2),
    "parabola over the step number": Rule("step", 2),
    "parabola over log-SNR": Rule("log-SNR", 2),
    "nine tenths of its change": Rule("log-SNR", 2, strength=0.9),
    "a line where the cache is older than 2 steps": Rule("log-SNR", 2, oldest=2),
    "steadied from 4 on": Rule("log-SNR", 2, steady=4.0),
    "steadied from 3 on": Rule("log-SNR", 2, steady=3.0),
    "steadied from 2.5 on": Rule("log-SNR", 2, steady=2.5),
    "line over the angle": Rule("angle", 1),
    "parabola over the angle": Rule("angle", 2),
    "steadied from 3 on, over the angle": Rule("angle", 2, steady=3.0),
}


def corrector_of(rule: Rule, sigmas: list[float], prediction: str) -> Any:
    """The pack's Corrector with the rule's weights."""
    from comfyui_omnicache.omnicache.correction import Correction, Corrector
    from comfyui_omnicache.omnicache.forecast import lagrange, steadied
    from comfyui_omnicache.omnicache.noise_axis import FORECAST_SMALLEST, log_snr

    axes = {
        "sigma": [-sigma for sigma in sigmas],
        "step": list(range(len(sigmas))),
        "log-SNR": log_snr(sigmas, prediction, FORECAST_SMALLEST).tolist(),
        "angle": [-math.atan2(sigma, 1 - sigma if prediction == "flow" else 1) for sigma in sigmas],
    }
    axis = axes[rule.axis]

    class Trial(Corrector):
        def weights(self, step: int, cached_steps: tuple[int, ...]) -> tuple[float, ...]:
            is_old = step - cached_steps[0] > rule.oldest
            known = [axis[cached] for cached in cached_steps[: 2 if is_old else None]]
            weights = lagrange(axis[step], known, rule.strength)
            if len(known) < 3:
                return weights
            return steadied(weights, lagrange(axis[step], known[:2], rule.strength), rule.steady)

    return Trial(Correction(order=rule.order), sigmas, None, 0.0, prediction)


def compare(demo: Any, steps: int) -> dict[tuple[int, float], dict[str, float]]:
    """By steps and budget, PSNR in dB of each rule to uncached. demo: a DemoModel."""
    from comfyui_omnicache.nodes.host import patched
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.run import CacheRun
    from comfyui_omnicache.omnicache.schedule import Schedule
    from comfyui_omnicache.omnicache.tap import StackTap
    from demo_model import psnr
    from prompts import drawn_prompts

    prompts = drawn_prompts(demo.kind, SEED, SAMPLES[demo.name])

    def pictures(model: Any, number: int = steps) -> Any:
        return demo.decode(demo.latents(model, "euler", number, prompts, seed=SEED))

    def cached(rule: Rule, plan: Any) -> Any:
        def make_run(sampling: Any, blocks: Any) -> CacheRun:
            corrector = corrector_of(rule, sampling.sigmas, demo.profile.model.prediction)
            return CacheRun(plan, corrector, StackTap(blocks))

        return pictures(patched(demo.model, make_run))

    plain, found = pictures(demo.model), {}
    for budget in BUDGETS:
        plan = Schedule(Budget("reuse ratio", budget), profile=demo.profile).plan_for(demo.sigmas(steps))
        row = {name: psnr(cached(rule, plan), plain) for name, rule in RULES.items()}
        row["fewer plain steps"] = psnr(pictures(demo.model, steps - sum(plan.reused)), plain)
        found[steps, budget] = row
        print(demo.name, steps, f"{budget:.0%}", {name: round(value, 2) for name, value in row.items()})
        sys.stdout.flush()
    return found


def document(found: dict[str, dict[tuple[int, float], dict[str, float]]]) -> str:
    lines = [
        "# Forecasts",
        "",
        "What the cached residual is continued by: a line or a parabola through the last two or three full "
        "steps. PSNR in dB to the uncached result of the same noise, euler, cfg 2.5, the pack's default plan "
        "for each budget, prompts and noise of no other measurement. *Steadied*: from the magnification on "
        "that is named, less of the parabola's bend is kept (`omnicache/forecast.py`). *The angle*: between "
        "picture and noise in the state, atan(noise / signal). The pack takes *steadied from 3 on*, for "
        "image_dit, which predicts the noise, over the angle. Bold: the best of a column. Made by "
        "`.host/venv/bin/python bench/forecasts.py`; what follows from it is in "
        "[experiments.md](experiments.md).",
        "",
    ]
    for kind, columns in found.items():
        heads = [f"{steps} steps, {budget:.0%}" for steps, budget in columns]
        values = {name: [row[name] for row in columns.values()] for name in next(iter(columns.values()))}
        with_mean = {name: [*of_name, sum(of_name) / len(of_name)] for name, of_name in values.items()}
        lines += [f"## {kind}, {SAMPLES[kind]} samples", ""]
        lines += [*table(["weights", *heads, "mean"], best_in_bold(with_mean)), ""]
    return "\n".join(lines)


def main() -> None:
    asked = models_asked_for(__doc__, SAMPLES)
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    found: dict[str, dict] = {}
    for kind in asked:
        demo = DemoModel(kind)
        found[kind] = {}
        for steps in STEPS:
            found[kind] |= compare(demo, steps)
            (ROOT / "docs" / "forecasts.md").write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
