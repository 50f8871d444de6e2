"""Samples one arm of bench/quality.py through the real host and measures it. Call in_process.load_host() and
load_pack() first."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import comfy.model_management
import numpy as np
import torch
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

import flops
import lemica_table
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.families import family_of, places_of
from comfyui_omnicache.omnicache.plan import Budget, Constraints, Layout, Plan
from comfyui_omnicache.omnicache.rivals import RIVALS, GivenSchedule, Sampling, minimax_path
from comfyui_omnicache.omnicache.schedule import Cost, Schedule
from demo_model import DemoModel
from demo_names import kind_of
from judging import classes_of, judge_of, judged, per_sample
from prompts import drawn_prompts
from quality_tasks import FOLDER, IN_BF16, PUBLISHED, ROOT, TOGETHER, WITHOUT_BUDGET, Task
from run_reports import reports

HOST_CACHES = {"easycache": EasyCacheNode, "lazycache": LazyCacheNode}
TRIAL_SAMPLES = {"image": 4, "video": 1}  # that a threshold is sought with
HOST_THRESHOLD, HIGHEST_THRESHOLD = 0.2, 3.0  # what the host's nodes suggest and allow


@dataclass(frozen=True)
class Arm:
    """How an arm samples. steps: of the sampler. setting: of what was chosen to meet the budget."""

    model: Any  # the host's ModelPatcher
    steps: int
    setting: float | None = None


@dataclass
class Counts:
    """Evaluations of one run for each row of its batch. full: where the blocks ran."""

    asked: int = 0
    full: int = 0


class Bench:
    """Holds the models, the judges and the uncached results of the arms measured last."""

    def __init__(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._reference: tuple[str, np.ndarray] | None = None
        self._settings: dict[tuple, float] = {}
        self._flops: dict[tuple, float] = {}
        self._evaluations: dict[tuple, int] = {}

    def prepare(self, name: str) -> None:
        """Trains the judge if there is none, and loads the model."""
        judge_of(kind_of(name))
        demo_model(name, False)

    def measure(self, task: Task) -> dict:
        """A row: counts, times and, for each sample, distances to the uncached result. No times of a GPU: of
        models so small they are those of its driver, and several arms share it (bench/speed.py has them)."""
        torch.manual_seed(task.seed)
        demo, prompts = self._demo(task), prompts_of(task)
        arm = self._arm(task, demo)
        pictures, seconds, counts = self._sample(task, demo, arm, prompts)
        if task.method in HOST_CACHES:
            counts.asked = self._asked(task, demo)
        if task.method in WITHOUT_BUDGET:
            self._keep_reference(task, pictures)
        reference = self._reference_of(task)
        found = per_sample(demo.kind, pictures, reference)
        probabilities, features = judged(demo.kind, pictures)
        np.save(FOLDER / f"{task.key}.features.npy", features)
        hits = probabilities.argmax(1) == np.array(classes_of(demo.kind, prompts))
        return {
            "sampled_steps": arm.steps, "setting": arm.setting, "full": counts.full, "asked": counts.asked,
            "seconds": None if is_on_gpu() else round(seconds, 4),
            "flops": self._flops_of(task, demo, arm),
            "flops_uncached": self._flops_of(task.reference, demo, Arm(demo.model, task.steps)),
            "psnr": [round(value, 4) for value in found["psnr"]],
            "ssim": [round(value, 6) for value in found["ssim"]],
            "distance": [float(f"{value:.6g}") for value in found["distance"]],
            "hits": hits.astype(int).tolist(),
        }  # fmt: skip

    def _demo(self, task: Task) -> DemoModel:
        return demo_model(task.model, task.method in IN_BF16)

    def _arm(self, task: Task, demo: DemoModel) -> Arm:
        if task.method in WITHOUT_BUDGET:
            return Arm(demo.model, task.steps)
        if task.method == "fewer-steps":
            return Arm(demo.model, task.full_steps)
        if task.method in HOST_CACHES:
            return self._host_cache(task, demo)
        if task.method == "lemica":
            return lemica(task, demo)
        if task.method in RIVALS:
            return self._rival(task, demo)
        return ours(task, demo)

    def _host_cache(self, task: Task, demo: DemoModel) -> Arm:
        """EasyCache and LazyCache, which decide while sampling."""

        def arm(threshold: float) -> Arm:
            node = HOST_CACHES[task.method]
            return Arm(node.execute(demo.model, threshold, 0.15, 0.95, False).args[0], task.steps, threshold)

        if task.reuse == PUBLISHED:
            return arm(HOST_THRESHOLD)
        return arm(self._threshold(task, demo, arm, HIGHEST_THRESHOLD))

    def _rival(self, task: Task, demo: DemoModel) -> Arm:
        if task.reuse == PUBLISHED or not RIVALS[task.method].decides_while_sampling:
            return rival(task, demo)
        fitted = fitted_of(demo.kind)

        def arm(knob: float) -> Arm:
            return patched(task, demo, GivenSchedule(task.method, knob=knob, **fitted), knob)

        return arm(self._threshold(task, demo, arm, RIVALS[task.method].knob.high))

    def _threshold(self, task: Task, demo: DemoModel, arm: Callable[[float], Arm], highest: float) -> float:
        """The threshold that computes at least as many steps as the budget asks for, and the fewest such:
        found on samples of another seed."""
        key = (task.model, task.sampler, task.steps, task.method, task.reuse)
        if key not in self._settings:
            trial = replace(task, seed=0, samples=TRIAL_SAMPLES[demo.kind])
            asked = self._asked(trial, demo)
            low, high = 0.0, highest
            for _ in range(8):
                middle = math.sqrt(max(low, 1e-3) * high)
                counts = self._sample(trial, demo, arm(middle), prompts_of(trial))[2]
                if counts.full * task.steps >= asked * task.full_steps:
                    low = middle
                else:
                    high = middle
            self._settings[key] = round(low, 5)
        return self._settings[key]

    def _asked(self, task: Task, demo: DemoModel) -> int:
        """Evaluations of an uncached run. LazyCache does not even ask for those that it spares."""
        key = (task.model, task.sampler, task.steps)
        if key not in self._evaluations:
            with counted(demo, Arm(demo.model, task.steps), 1, False) as (model, counts):
                demo.latents(model, task.sampler, task.steps, prompts_of(task)[:1])
            self._evaluations[key] = counts.asked
        return self._evaluations[key]

    def _sample(
        self, task: Task, demo: DemoModel, arm: Arm, prompts: list[str]
    ) -> tuple[np.ndarray, float, Counts]:
        """Pictures (samples, frames, height, width, 3) in 0..1, the CPU seconds of sampling, and the counts
        of the first chunk: they are all the same, but for the host's caches."""
        pictures, seconds, first = [], 0.0, None
        for number in range(0, len(prompts), TOGETHER):
            chunk = prompts[number : number + TOGETHER]
            with counted(demo, arm, len(chunk), task.method in HOST_CACHES) as (model, counts):
                started = time.process_time()
                latents = demo.latents(model, task.sampler, arm.steps, chunk, seed=1000 * task.seed + number)
                seconds += time.process_time() - started
            first = first or counts
            decoded = demo.decode(latents).numpy()
            pictures.append(decoded.reshape(len(chunk), -1, *decoded.shape[1:]))
        return np.concatenate(pictures), seconds, first

    def _flops_of(self, task: Task, demo: DemoModel, arm: Arm) -> float:
        """Floating-point operations of sampling one sample, as PyTorch counts them."""
        key = (task.model, task.sampler, task.steps, task.reuse, task.method)
        if key not in self._flops:
            with flops.counter() as counter:
                demo.latents(arm.model, task.sampler, arm.steps, prompts_of(task)[:1])
            self._flops[key] = float(counter.get_total_flops())
        return self._flops[key]

    def _keep_reference(self, task: Task, pictures: np.ndarray) -> None:
        path = task.pictures
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, pictures)
        partial.replace(path)  # other processes may read it
        self._reference = task.key, pictures

    def _reference_of(self, task: Task) -> np.ndarray:
        key = task.reference.key
        if self._reference is None or self._reference[0] != key:
            path = task.reference.pictures
            if not path.exists():  # its row is there but its pictures are not
                self.measure(task.reference)
            self._reference = key, np.load(path)
        return self._reference[1]


def is_on_gpu() -> bool:
    return comfy.model_management.get_torch_device().type != "cpu"


@cache
def demo_model(name: str, in_bf16: bool) -> DemoModel:
    return DemoModel(name, torch.bfloat16 if in_bf16 else torch.float32)


OWN_CORRECTIONS = {
    "omnicache-paper": Correction("paper", "low-high"),
    "omnicache-no-repay": Correction(repay=0.0),
}


def ours(task: Task, demo: DemoModel) -> Arm:
    is_paper = task.method == "omnicache-paper"
    constraints = Constraints(protect_last=1 if is_paper else Constraints.protect_last)
    constraints = constraints.with_longest_run(task.steps, task.steps - task.full_steps)
    cost: Cost = "curvature" if is_paper else Schedule.cost
    schedule = Schedule(
        Budget("reuse ratio", task.reuse), cost, constraints, demo.profile if is_paper else None
    )
    granularity = "stack" if task.method in ("omnicache-paper", "omnicache-stack") else "auto"
    correction = OWN_CORRECTIONS.get(task.method)
    model = OmniCacheModelPatch.execute(demo.model, schedule, correction, granularity).args[0]
    return Arm(model, task.steps, constraints.max_consecutive)


def rival(task: Task, demo: DemoModel) -> Arm:
    """With its published setting, or the one whose plan meets the budget most nearly."""
    full_steps = None if task.reuse == PUBLISHED else task.full_steps
    schedule = GivenSchedule(task.method, full_steps=full_steps, profile=demo.profile)
    diffusion_model = demo.model.model.diffusion_model
    layout = tuple(place.blocks.branches for place in places_of(diffusion_model, family_of(diffusion_model)))
    setting = schedule.setting_for(Sampling(demo.sigmas(task.steps), layout, schedule.profile))
    return patched(task, demo, schedule, setting)


def patched(task: Task, demo: DemoModel, schedule: GivenSchedule, setting: float) -> Arm:
    granularity = "branch" if schedule.rival.needs_branches else "stack"
    model = OmniCacheModelPatch.execute(demo.model, schedule, granularity=granularity).args[0]
    return Arm(model, task.steps, setting)


@cache
def fitted_of(kind: str) -> dict[str, Any]:
    """What bench/teacache_fit.py fitted to a demo model, as arguments of GivenSchedule."""
    found = json.loads((ROOT / "bench" / "out" / "teacache.json").read_text())[kind]
    fitted = {"polynomial": tuple(found["polynomial"])}
    if "typical_motion" in found:
        fitted["typical_motion"] = found["typical_motion"]
    return fitted


@dataclass(frozen=True)
class MeasuredLemica(GivenSchedule):
    """LeMiCa by errors measured as its paper does, in the place of the profile's."""

    errors: np.ndarray | None = None

    def plan_for(self, sigmas: np.ndarray, layout: Layout = (), prediction: str | None = None) -> Plan:
        full = minimax_path(self.errors, self.full_steps, lemica_table.LONGEST)
        return Plan.of([step not in full for step in range(len(sigmas) - 1)])


def lemica(task: Task, demo: DemoModel) -> Arm:
    schedule = MeasuredLemica(
        "lemica-local", full_steps=task.full_steps, profile=demo.profile,
        errors=lemica_table.table(task.model, task.steps),
    )  # fmt: skip
    return Arm(OmniCacheModelPatch.execute(demo.model, schedule).args[0], task.steps)


def prompts_of(task: Task) -> list[str]:
    """Drawn as the training's were; the same for each arm of a seed."""
    return drawn_prompts(kind_of(task.model), task.seed, task.samples)


@contextmanager
def counted(demo: DemoModel, arm: Arm, batch: int, counts_blocks: bool) -> Iterator[tuple[Any, Counts]]:
    """A clone of the arm's model, and the evaluations of the run that it is sampled in. counts_blocks: full
    ones are those that reach the blocks, where no report of ours tells."""
    counts = Counts()

    def count(apply_model: Callable, arguments: dict) -> torch.Tensor:
        counts.asked += arguments["input"].shape[0] // batch
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    def count_block(module, arguments) -> None:
        counts.full += blocks_rows[0] // batch

    blocks_rows = [0]

    def count_model(module, arguments) -> None:
        blocks_rows[0] = arguments[0].shape[0]

    model, hooks = arm.model.clone(), []
    if counts_blocks:
        diffusion_model = demo.model.model.diffusion_model
        first = places_of(diffusion_model, family_of(diffusion_model))[0].blocks.attribute
        hooks = [
            diffusion_model.register_forward_pre_hook(count_model),
            getattr(diffusion_model, first)[0].register_forward_pre_hook(count_block),
        ]
    model.set_model_unet_function_wrapper(count)
    try:
        with reports() as found:
            yield model, counts
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        counts.full, counts.asked = found[0].evaluations_full, found[0].evaluations_asked
    elif not counts_blocks:
        counts.full = counts.asked
