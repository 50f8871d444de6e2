"""How an error of one reused step grows until the end: reuses one step of a run without any correction and
compares the state behind it, and the result, with those of the uncached run. Prints a Markdown table.

    .host/venv/bin/python bench/growth.py
"""

import sys
from pathlib import Path

from command_line import parser_of

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

STEPS, EVERY = 30, 3
BATCH = {"image": 6, "video": 1}
PROMPT = {"image": "panda on red", "video": "star spinning on blue"}


def grown(demo, steps: int = STEPS, every: int = EVERY) -> list[tuple[float, float]]:
    """(sigma, growth) of each tried step. demo: a DemoModel. growth: size of the error at the end over its
    size in the state that the reused step led to; with euler."""
    from comfyui_omnicache.nodes.host import patched
    from comfyui_omnicache.omnicache.correction import Correction, Corrector
    from comfyui_omnicache.omnicache.plan import Plan
    from comfyui_omnicache.omnicache.run import CacheRun
    from comfyui_omnicache.omnicache.tap import StackTap

    schedule = []

    def states(reused: int | None) -> list:
        """The state that each step starts from, and the end."""
        seen = []

        def make_run(sampling, blocks):
            schedule[:] = sampling.sigmas
            corrector = Corrector(Correction("off"), sampling.sigmas, None, 0.0, sampling.sigmas)
            return CacheRun(Plan.of([step == reused for step in range(steps)]), corrector, StackTap(blocks))

        end = demo.latents(
            patched(demo.model, make_run), "euler", steps, [PROMPT[demo.kind]] * BATCH[demo.kind],
            callback=lambda step, denoised, x, total: seen.append(x.clone()),
        )  # fmt: skip
        # The host hands latents out in the scale of its own autoencoders; the states are in the model's.
        return [*seen, demo.model.model.process_latent_in(end)]

    uncached, found = states(None), []
    for step in range(1, steps - 1, every):
        errors = [(a - b).norm().item() for a, b in zip(states(step), uncached, strict=True)]
        found.append((schedule[step], errors[-1] / errors[step + 1]))
    return found


def main() -> None:
    parser_of(__doc__).parse_args()
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    curves = {}
    for kind in BATCH:
        curves[kind] = grown(DemoModel(kind))
    print("| sigma | " + " | ".join(curves) + " |")
    print("|---|" + "---|" * len(curves))
    for rows in zip(*curves.values(), strict=True):
        print(f"| {rows[0][0]:.2f} | " + " | ".join(f"{growth:.2f}" for _, growth in rows) + " |")


if __name__ == "__main__":
    main()
