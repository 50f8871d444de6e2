"""How far reuse goes in short runs: the few-step student beside as many plain steps as are computed. Prints
the table of docs/experiments.md, "Short runs".

    .host/venv/bin/python bench/short_runs.py
"""

import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "demo")]

import numpy as np  # noqa: E402

import measures  # noqa: E402
from command_line import parser_of  # noqa: E402
from prompts import drawn_prompts  # noqa: E402
from tables import table  # noqa: E402

MODEL = "image_fewstep"
REUSED = {8: (2, 3, 4), 10: (4, 5, 6), 12: (6, 7), 16: (11,)}  # by the steps of a run
SEEDS, SAMPLES, PROMPTS = (77, 78), 22, 9  # PROMPTS: seed of the prompts
TITLES = ("steps", "reused", "pack, dB", "plain, dB", "pack, SSIM", "plain, SSIM")


def compared(demo) -> list[tuple[str, ...]]:
    """The rows of the table. demo: a DemoModel."""
    from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.schedule import Schedule

    prompts = drawn_prompts(demo.kind, PROMPTS, SAMPLES)

    def pictures(model, steps: int) -> np.ndarray:
        drawn = [demo.decode(demo.latents(model, "euler", steps, prompts, seed=seed)) for seed in SEEDS]
        return np.concatenate([each.numpy() for each in drawn])

    @cache
    def plain(steps: int) -> np.ndarray:
        return pictures(demo.model, steps)

    rows = []
    for steps, reused in ((steps, reused) for steps, each in REUSED.items() for reused in each):
        schedule = Schedule(Budget("full steps", steps - reused), profile=demo.profile)
        patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
        both = pictures(patch, steps), plain(steps - reused)
        psnrs = [f"{measures.psnr(each, plain(steps)):.1f}" for each in both]
        ssims = [f"{measures.ssim(each, plain(steps)):.3f}" for each in both]
        rows.append((str(steps), str(reused), *psnrs, *ssims))
    return rows


def main() -> None:
    parser_of(__doc__).parse_args()
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    print("\n".join(table(TITLES, compared(DemoModel(MODEL)))))


if __name__ == "__main__":
    main()
