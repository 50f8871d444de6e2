"""What a plan should be chosen by: measures, for a sampler, how one reused step moves the end of sampling and
how far a forecast is off at each step, and compares plans that weigh these with the pack's own cost. Writes
docs/plans.md.

    .host/venv/bin/python bench/plans.py [image] [video]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line import models_asked_for
from tables import best_in_bold, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

SETTINGS = (("euler", 50), ("euler", 30), ("dpmpp_2m", 24))
BUDGETS = (0.5, 0.6, 0.7)
SAMPLES = {"image": 6, "video": 1}
EVERY = {"image": 3, "video": 6}  # steps between those whose growth is measured
MEASURED_SEED, TESTED_SEED = 910_001, 910_002  # of no arm of bench/quality.py
AGES, GAPS = (1, 2, 3), (1, 2, 3, 4)  # of a forecast: from its newest cache, and between its caches

# Of the pack; the first is its default.
OWN = ("forecast error", "corrected error", "reach", "error", "curvature", "even")

Cost = Callable[[int, int, int], float]


@dataclass(frozen=True)
class Measured:
    """of_forecast: (steps, ages, gaps) |q| over |output| of a forecast of order 2, of a lower one where there
    were fewer steps. of_reuse: (steps,) of a cache one step old. end: (steps,) how far the result moves when
    this step alone is reused, over its size."""

    of_forecast: np.ndarray
    of_reuse: np.ndarray
    end: np.ndarray

    @property
    def growth(self) -> np.ndarray:
        """(steps,) displacement of the result for each unit of |q| over |output|."""
        return self.end / self.of_reuse

    def forecast_error(self, step: int, cached_step: int, earlier_step: int) -> float:
        age, gap = step - cached_step, cached_step - earlier_step
        known = self.of_forecast[step, min(age, AGES[-1]) - 1, min(gap, GAPS[-1]) - 1]
        return float(known) * max(age / AGES[-1], 1.0)


def costs(measured: Measured, own: dict[str, Cost], lengths: np.ndarray) -> dict[str, Cost]:
    """own: the pack's, of which corrected error has the length in sigma as a factor."""
    corrected = own["corrected error"]
    growth, error = measured.growth, measured.forecast_error
    return {
        **own,
        "corrected error, with growth": lambda s, c, e: corrected(s, c, e) / lengths[s] * growth[s],
        "forecast's error": lambda s, c, e: error(s, c, e) * lengths[s],
        "forecast's error, with growth": lambda s, c, e: error(s, c, e) * growth[s],
        "the same, squared": lambda s, c, e: (error(s, c, e) * growth[s]) ** 2,
    }


class ForecastRecorder:
    """A run that is computed in full and tries at each step what forecasts would have given."""

    def __init__(self, sigmas: list[float], tap: Any) -> None:
        from comfyui_omnicache.omnicache.noise_axis import forecast_axis

        self.tap = tap
        self._axis = forecast_axis(sigmas, "flow").tolist()
        steps = len(sigmas) - 1
        self._step, self._residuals = 0, []
        self._output, self._reuse = np.zeros(steps), np.full(steps, np.nan)
        self._forecast = np.full((steps, len(AGES), len(GAPS)), np.nan)

    def evaluate(self, call: Any) -> Any:
        """The host's call in full, with a replay for each forecast. call: of the two rows together."""
        from comfyui_omnicache.omnicache.storage import Kept

        denoised, (kept,) = self.tap.capture(call.forward, Kept.as_is)
        sigma, step = call.sigma_column(), self._step
        self._output[step] = float(((call.x - denoised) / sigma).norm())

        def noise(residual: Any) -> float:
            return float(((denoised - self.tap.replay(call.forward, [residual])) / sigma).norm())

        if step:
            self._reuse[step] = noise(self._residuals[step - 1])
        for age in AGES:
            for gap in GAPS:
                if step >= age:
                    self._forecast[step, age - 1, gap - 1] = noise(self._continued(step, age, gap))
        self._residuals.append(kept.whole())
        return denoised

    def _continued(self, step: int, age: int, gap: int) -> Any:
        from comfyui_omnicache.omnicache.forecast import lagrange

        known = [s for s in (step - age, step - age - gap, step - age - 2 * gap) if s >= 0]
        weights = lagrange(self._axis[step], [self._axis[s] for s in known])
        return sum(weight * self._residuals[s] for weight, s in zip(weights, known, strict=True))

    def spares_control(self, *_: Any) -> bool:
        return False

    def step_finished(self, step: int) -> None:
        self._step = step + 1

    def sampling_finished(self, samples: Any) -> None: ...

    def close(self) -> None:
        self._residuals.clear()

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Of forecasts and of plain reuse, over the output's size."""
        return self._forecast / self._output[:, None, None], self._reuse / self._output


class Study:
    """One demo model. demo: a DemoModel."""

    def __init__(self, demo: Any) -> None:
        from prompts import drawn_prompts

        self._demo = demo
        count = SAMPLES[demo.kind]
        self._prompts = {seed: drawn_prompts(demo.kind, seed, count) for seed in (MEASURED_SEED, TESTED_SEED)}

    def compare(self, sampler: str, steps: int) -> dict[float, dict[str, float | None]]:
        """By budget and cost, PSNR in dB to uncached; None where the constraints leave no such plan."""
        from comfyui_omnicache.omnicache.plan import Budget, Constraints, solve
        from comfyui_omnicache.omnicache.schedule import Schedule
        from demo_model import psnr

        sigmas = self._demo.sigmas(steps).astype(np.float64)
        schedules = {
            cost: Schedule(Budget("reuse ratio", 0.5), cost, profile=self._demo.profile) for cost in OWN
        }
        measured = self._measure(sampler, steps)
        plain = self._pictures(sampler, steps, None)
        found: dict[float, dict[str, float | None]] = {}
        for reuse in BUDGETS:
            reused = round(reuse * steps)
            found[reuse] = {}
            own = {cost: schedule.step_cost(sigmas, reused) for cost, schedule in schedules.items()}
            tried = costs(measured, own, sigmas[:-1] - sigmas[1:])
            for name, cost in tried.items():
                try:
                    plan = solve(steps, reused, Constraints(protect_last=1), cost)
                except ValueError:
                    found[reuse][name] = None
                    continue
                found[reuse][name] = psnr(self._pictures(sampler, steps, plan), plain)
            fewer = psnr(self._pictures(sampler, steps - reused, None), plain)
            found[reuse]["fewer plain steps"] = fewer
            print(sampler, steps, f"{reuse:.0%}", found[reuse], flush=True)
        return found

    def _measure(self, sampler: str, steps: int) -> Measured:
        from comfyui_omnicache.nodes.host import patched
        from comfyui_omnicache.omnicache.plan import Plan
        from comfyui_omnicache.omnicache.tap import StackTap

        recorders: list[ForecastRecorder] = []

        def make_run(sampling: Any, blocks: Any) -> ForecastRecorder:
            recorders.append(ForecastRecorder(sampling.sigmas, StackTap(blocks)))
            return recorders[-1]

        prompts = self._prompts[MEASURED_SEED]
        self._demo.latents(patched(self._demo.model, make_run), sampler, steps, prompts, seed=MEASURED_SEED)
        uncached = self._latents(sampler, steps, None, MEASURED_SEED)
        tried = sorted({1, 2, *range(3, steps - 2, EVERY[self._demo.kind]), steps - 2, steps - 1})
        moved = []
        for step in tried:
            alone = Plan.of([number == step for number in range(steps)])
            end = self._latents(sampler, steps, alone, MEASURED_SEED, corrected=False)
            moved.append(float((end - uncached).norm() / uncached.norm()))
        ends = np.exp(np.interp(np.arange(steps), tried, np.log(moved)))
        return Measured(*recorders[0].errors(), ends)

    def _pictures(self, sampler: str, steps: int, plan: Any) -> Any:
        return self._demo.decode(self._latents(sampler, steps, plan, TESTED_SEED))

    def _latents(self, sampler: str, steps: int, plan: Any, seed: int, corrected: bool = True) -> Any:
        from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
        from comfyui_omnicache.omnicache.correction import Correction
        from given_plan import GivenPlan

        model = self._demo.model
        if plan is not None:
            correction = Correction() if corrected else Correction("off")
            model = OmniCacheModelPatch.execute(model, GivenPlan(plan.reused), correction).args[0]
        return self._demo.latents(model, sampler, steps, self._prompts[seed], seed=seed)


def document(found: dict[str, dict[tuple[str, int], dict[float, dict[str, float | None]]]]) -> str:
    lines = [
        "# Plans by what they are chosen by",
        "",
        "PSNR in dB to the uncached result of the same noise, forecast of order 2. *growth*: how far the end "
        "of sampling moves for an error of one step, measured with the same sampler by reusing single steps. "
        "*forecast's error*: what a forecast of order 2 was off at each step, for each age and distance of "
        "its caches, measured in a full run. Both on other prompts and noise than the PSNR. *reach*: from "
        "the noise levels alone. *forecast error*: the pack's default, the geometric mean of corrected error "
        "and reach. *curvature*: the paper's. Made by `.host/venv/bin/python bench/plans.py`.",
        "",
    ]
    for kind, of_kind in found.items():
        columns = {
            f"{sampler} {steps}, {budget:.0%}": column
            for (sampler, steps), budgets in of_kind.items()
            for budget, column in budgets.items()
        }
        values = {
            name: [column[name] for column in columns.values()] for name in next(iter(columns.values()))
        }
        lines += [f"## {kind} model, {SAMPLES[kind]} sample(s)", ""]
        lines += [*table(["chosen by", *columns], best_in_bold(values)), ""]
    return "\n".join(lines)


def main() -> None:
    asked = models_asked_for(__doc__, SAMPLES)
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    found: dict[str, dict] = {}
    for kind in asked:
        study = Study(DemoModel(kind))
        for setting in SETTINGS:
            found.setdefault(kind, {})[setting] = study.compare(*setting)
            (ROOT / "docs" / "plans.md").write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
