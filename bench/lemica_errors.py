"""Measures what LeMiCa chooses its plan by, as its paper does (arXiv 2511.00090, Eq. 4): for each run of
reused steps, how far the end of sampling moves if nothing else is reused. bench/quality.py needs it for its
arm "lemica".

    .host/venv/bin/python bench/lemica_errors.py --model image --steps 50

One line for each run of steps goes to .host/quality/lemica_<model>_<steps>.jsonl; stop and start again as you
like. Measured with euler, whose runs can be started anywhere; other samplers go through the same sigmas.
"""

import argparse
import sys
from pathlib import Path

import lemica_table
import row_file
from long_run import Progress

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

MODELS = ("image", "video", "image_fewstep")
SEED = 900_000  # of no arm of the bench


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
    from prompts import drawn_prompts

    model, prompts, states = demo.name, drawn_prompts(demo.kind, SEED, samples), []
    plain = demo.latents(
        demo.model, "euler", steps, prompts, seed=SEED,
        callback=lambda step, denoised, x, total: states.append(x.clone()),
    )  # fmt: skip
    done = lemica_table.read(model, steps)
    missing = [edge for edge in lemica_table.edges(steps) if edge not in done]
    progress = Progress([steps - i for i, _ in missing])
    for i, j in missing:
        progress.says(f"{model}, {steps} steps: from {i} to {j}")
        # From step i on: full but between it and the next full one.
        schedule = GivenPlan(tuple(0 < step < j - i for step in range(steps - i)))
        patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
        end = demo.continued(patch, "euler", demo.sigmas(steps)[i:], states[i], prompts)
        error = float((end - plain).abs().mean())
        row_file.append(lemica_table.path_of(model, steps), {"from": i, "to": j, "error": error})
        progress.did(steps - i)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["image", "video"])
    parser.add_argument("--steps", nargs="+", type=int, default=[50, 30, 20])
    parser.add_argument("--samples", type=int, default=4, help="trajectories")
    given = parser.parse_args()
    for steps in given.steps:
        for model in given.model:
            if not lemica_table.is_complete(model, steps):
                measure(model, steps, given.samples)


if __name__ == "__main__":
    main()
