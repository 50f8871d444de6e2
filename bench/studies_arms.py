"""Samples one case of bench/studies.py through the real host and measures it. Call in_process.load_host() and
load_pack() first."""

import time
from collections.abc import Iterable

import numpy as np

import studies_lanes
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.plan import Plan
from comfyui_omnicache.omnicache.report import RunReport
from comfyui_omnicache.omnicache.schedule import Schedule
from demo_model import DemoModel
from measures import psnr
from run_reports import reports
from studies_cases import CFG, FOLDER, PROMPTS, SEED, Case
from studies_setup import bands_over, correction_of, demo_model, name_of, schedule_of

MEASURED = ("plan", "outcome", "psnr", "seconds", "cache_bytes", "full", "asked", "limited_gammas")


class Bench:
    """Holds the uncached pictures that were asked for last, and what was measured."""

    def __init__(self, rows: Iterable[dict]) -> None:
        """rows: the finished ones."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._known = {row["outcome"]: row for row in rows if "outcome" in row}
        self._reference: tuple[Case, np.ndarray] | None = None

    def measure(self, case: Case) -> dict:
        """A row. psnr: for each sample, mean over its frames, in dB to the uncached one. A case whose
        constraints allow no plan says why instead."""
        demo, schedule = demo_model(case.model), schedule_of(case)
        try:
            plan = schedule.plan_for(demo.sigmas(case.steps, case.scheduler))
        except ValueError as impossible:
            return {"impossible": str(impossible)}
        decisions = "".join("r" if reused else "f" for reused in plan.reused)
        outcome = case.outcome(decisions)
        if outcome not in self._known:
            self._known[outcome] = {
                "plan": decisions,
                "outcome": outcome,
                **self._sampled(case, schedule, plan),
            }
        return {name: self._known[outcome][name] for name in MEASURED}

    def _sampled(self, case: Case, schedule: Schedule, plan: Plan) -> dict:
        demo, reference = demo_model(case.model), self._uncached(case.reference)
        with reports() as found, bands_over(case.over_time):
            if case.lanes:
                model = studies_lanes.patched(demo, case, schedule, plan)
            else:
                model = OmniCacheModelPatch.execute(
                    demo.model, schedule, correction_of(case), case.granularity
                ).args[0]
            pictures, seconds = sample(demo, case, model)
        report = found[0] if found else RunReport(0, 0)
        return {
            "psnr": [round(psnr(*pair), 3) for pair in zip(pictures, reference, strict=True)],
            "seconds": round(seconds, 3),
            "cache_bytes": report.cache_bytes,
            "full": report.evaluations_full,
            "asked": report.evaluations_asked,
            "limited_gammas": report.limited_gammas,
        }

    def _uncached(self, case: Case) -> np.ndarray:
        if self._reference is None or self._reference[0] != case:
            path = FOLDER / f"uncached_{name_of(case)}.npy"
            if not path.exists():
                demo = demo_model(case.model)
                np.save(path, sample(demo, case, demo.model)[0])
            self._reference = case, np.load(path)
        return self._reference[1]


def sample(demo: DemoModel, case: Case, model) -> tuple[np.ndarray, float]:
    """Pictures (samples, frames, height, width, 3) in 0..1 and the CPU seconds that sampling took."""
    started = time.process_time()
    latents = demo.latents(
        model, case.sampler, case.steps, PROMPTS[case.model], CFG, SEED, scheduler=case.scheduler,
        shape=case.shape,
    )  # fmt: skip
    seconds = time.process_time() - started
    pictures = demo.decode(latents).numpy()
    return pictures.reshape(len(PROMPTS[case.model]), -1, *pictures.shape[1:]), seconds
