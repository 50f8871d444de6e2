"""Plans and repay on models that were tuned to and on some that were not: the pack's default beside an even
cadence, TaylorSeer and fewer plain steps, and what each part of it is worth. Writes the tables of
docs/repay.md.

    .host/venv/bin/python bench/repay.py [image] [image_dit] [image_fewstep] [video] [galaxy_64] [galaxy_32]
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from command_line import models_asked_for
from tables import best_in_bold, put_between, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

FILE = ROOT / "bench" / "out" / "repay.json"
SEED, PROMPTS = 5, 9  # of no arm of bench/quality.py
SAMPLES = {"image": 12, "image_dit": 12, "image_fewstep": 12, "video": 2, "galaxy_64": 16, "galaxy_32": 16}
SETTINGS = {
    "image": [("euler", "simple", 50), ("euler", "simple", 30), ("euler", "simple", 20),
              ("euler", "karras", 20), ("euler", "beta", 30), ("dpmpp_2m", "simple", 20),
              ("dpmpp_2m", "simple", 30), ("res_multistep", "simple", 30)],
    "image_dit": [("euler", "simple", 50), ("euler", "simple", 30), ("euler", "simple", 20),
                  ("euler", "karras", 20), ("euler", "beta", 30), ("dpmpp_2m", "simple", 20)],
    "image_fewstep": [("euler", "simple", 16), ("euler", "simple", 12), ("euler", "simple", 8)],
    "video": [("euler", "simple", 30), ("euler", "simple", 20), ("dpmpp_2m", "simple", 20)],
    "galaxy_64": [("euler", "karras", 30), ("euler", "karras", 20), ("euler", "simple", 30),
                  ("dpmpp_2m", "karras", 20)],
    "galaxy_32": [("euler", "karras", 30), ("euler", "karras", 20)],
}  # fmt: skip
BUDGETS = {16: (5, 8), 12: (3, 6), 8: (2, 3)}  # steps to reuse, of so many
USUAL_BUDGETS = (0.35, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Arm:
    """One way to reuse. correction: fields that differ from the default's."""

    cost: str = "reach"
    granularity: str = "auto"
    correction: tuple[tuple[str, Any], ...] = ()


ARMS = {
    "default": Arm(),
    "default, stack": Arm(granularity="stack"),
    "without repay": Arm(correction=(("repay", 0.0),)),
    "half of repay": Arm(correction=(("repay", 0.5),)),
    "order 1": Arm(correction=(("order", 1),)),
    "even cadence": Arm("even"),
    "even, without repay": Arm("even", correction=(("repay", 0.0),)),
    "even, taylor of outputs": Arm("even", "output", (("mode", "taylor"),)),
}
CONTROLS = ("taylorseer-2", "fewer plain steps")


class Setting:
    """A model with a sampler, and its uncached pictures. model: a DemoModel or a GalaxyModel."""

    def __init__(self, model: Any, sampler: str, scheduler: str, steps: int) -> None:
        from prompts import drawn_prompts

        self._model, self._sampler, self._scheduler, self._steps = model, sampler, scheduler, steps
        count = SAMPLES[model.name]
        is_galaxy = model.kind == "galaxy"
        self._prompts = [""] * count if is_galaxy else drawn_prompts(model.kind, PROMPTS, count)
        self._peaks_vary = is_galaxy
        self._plain = self._pictures(model.model)

    def measure(self, reused: int) -> dict[str, float]:
        """PSNR in dB of each arm, by its name."""
        found = {name: self._cached(arm, reused) for name, arm in ARMS.items()}
        found["taylorseer-2"] = self._taylorseer(reused)
        found["fewer plain steps"] = self._psnr(self._pictures(self._model.model, self._steps - reused))
        return {name: round(value, 2) for name, value in found.items()}

    def _cached(self, arm: Arm, reused: int) -> float:
        from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
        from comfyui_omnicache.omnicache.correction import Correction
        from comfyui_omnicache.omnicache.plan import Budget
        from comfyui_omnicache.omnicache.schedule import Schedule

        schedule = Schedule(Budget("full steps", self._steps - reused), cost=arm.cost)
        correction = Correction(**dict(arm.correction)) if arm.correction else None
        model = OmniCacheModelPatch.execute(self._model.model, schedule, correction, arm.granularity).args[0]
        return self._psnr(self._pictures(model))

    def _taylorseer(self, reused: int) -> float:
        from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
        from comfyui_omnicache.omnicache.rivals import GivenSchedule

        schedule = GivenSchedule("taylorseer-2", full_steps=self._steps - reused)
        model = OmniCacheModelPatch.execute(self._model.model, schedule, granularity="branch").args[0]
        return self._psnr(self._pictures(model))

    def _pictures(self, model: Any, steps: int | None = None) -> torch.Tensor:
        latents = self._model.latents(
            model, self._sampler, steps or self._steps, self._prompts, seed=SEED, scheduler=self._scheduler
        )
        return self._model.decode(latents)

    def _psnr(self, pictures: torch.Tensor) -> float:
        """Mean over the pictures; the peak is 1, or the picture's own where that has no end."""
        errors = (pictures - self._plain).square().flatten(1).mean(1).clamp(min=1e-10)
        peaks = self._plain.flatten(1).amax(1) if self._peaks_vary else torch.ones(len(errors))
        return float((20 * peaks.log10() - 10 * errors.log10()).clamp(max=100.0).mean())


def budgets_of(steps: int) -> list[int]:
    """Steps to reuse out of so many."""
    return list(BUDGETS.get(steps) or [round(share * steps) for share in USUAL_BUDGETS])


def tables_of(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """found: by model and column, the arms' decibels."""
    lines: list[str] = []
    for model, columns in found.items():
        names = [*ARMS, *CONTROLS]
        values = {name: [column[name] for column in columns.values()] for name in names}
        with_mean = {name: [*row, float(np.mean(row))] for name, row in values.items()}
        lines += [f"## {model}, {SAMPLES[model]} samples", ""]
        lines += [*table(["", *columns, "mean"], best_in_bold(with_mean)), ""]
    return lines


def main() -> None:
    asked = models_asked_for(__doc__, SAMPLES)
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from galaxy import SIZES, GalaxyModel

    from demo_model import DemoModel

    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in asked:
        model = GalaxyModel(name) if name in SIZES else DemoModel(name)
        found[name] = {}
        for setting in SETTINGS[name]:
            measured = Setting(model, *setting)
            for reused in budgets_of(setting[2]):
                column = f"{' '.join(map(str, setting))}, {reused / setting[2]:.0%}"
                found[name][column] = measured.measure(reused)
                print(name, column, found[name][column], flush=True)
            ordered = {each: found[each] for each in SETTINGS if each in found}
            FILE.write_text(json.dumps(ordered, indent=1) + "\n")
            put_between(ROOT / "docs" / "repay.md", "bench/repay.py", tables_of(ordered))


if __name__ == "__main__":
    main()
