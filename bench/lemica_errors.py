"""Measures what LeMiCa chooses its plan by, as its paper does (arXiv 2511.00090, Eq. 4): for each run of
reused steps, how far the end of sampling moves if nothing else is reused. bench/quality.py needs it for its
arm "lemica".

    .host/venv/bin/python bench/lemica_errors.py --model image --steps 50

One line for each run of steps goes to .host/quality/lemica_<model>_<steps>.jsonl; stop and start again as you
like. Measured with euler, whose runs can be started anywhere; other samplers go through the same sigmas.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import row_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

FOLDER = ROOT / ".host" / "quality"
MODELS = ("image", "video", "image_fewstep")
LONGEST = 7  # distance between two full steps, as in the published lists
SEED = 900_000  # of no arm of the bench


def edges(steps: int) -> list[tuple[int, int]]:
    """All runs of reused steps, as the full steps around them. Neighbours have none between them."""
    return [(i, j) for i in range(steps) for j in range(i + 2, min(i + LONGEST, steps - 1) + 1)]


def path_of(model: str, steps: int) -> Path:
    return FOLDER / f"lemica_{model}_{steps}.jsonl"


def read(model: str, steps: int) -> dict[tuple[int, int], float]:
    return {(row["from"], row["to"]): row["error"] for row in row_file.read(path_of(model, steps))}


def is_complete(model: str, steps: int) -> bool:
    return set(edges(steps)) <= set(read(model, steps))


def table(model: str, steps: int) -> np.ndarray:
    """(steps, steps) measured errors, for omnicache.rivals.minimax_path."""
    errors = np.zeros((steps, steps))
    for (i, j), error in read(model, steps).items():
        errors[i, j] = error
    return errors


def measure(model: str, steps: int, samples: int) -> None:
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    measure_with(DemoModel(model), steps, samples)


def measure_with(demo, steps: int, samples: int) -> None:
    """demo: a DemoModel."""
    from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
    from given_plan import GivenPlan
    from quality_arms import drawn_prompts

    model, prompts, states = demo.name, drawn_prompts(demo.kind, SEED, samples), []
    plain = demo.latents(
        demo.model, "euler", steps, prompts, seed=SEED,
        callback=lambda step, denoised, x, total: states.append(x.clone()),
    )  # fmt: skip
    done = read(model, steps)
    missing = [edge for edge in edges(steps) if edge not in done]
    started, work = time.monotonic(), 0
    left = sum(steps - i for i, _ in missing)
    for number, (i, j) in enumerate(missing, start=1):
        # From step i on: full but between it and the next full one.
        schedule = GivenPlan(tuple(0 < step < j - i for step in range(steps - i)))
        patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
        end = demo.continued(patch, "euler", demo.sigmas(steps)[i:], states[i], prompts)
        error = float((end - plain).abs().mean())
        row_file.append(path_of(model, steps), {"from": i, "to": j, "error": error})
        work, left = work + steps - i, left - (steps - i)
        minutes = (time.monotonic() - started) / work * left / 60
        print(f"{model}, {steps} steps: {number}/{len(missing)}, about {minutes:.0f} min left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["image", "video"])
    parser.add_argument("--steps", nargs="+", type=int, default=[50, 30, 20])
    parser.add_argument("--samples", type=int, default=4, help="trajectories")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for steps in given.steps:
        for model in given.model:
            if not is_complete(model, steps):
                measure(model, steps, given.samples)


if __name__ == "__main__":
    main()
