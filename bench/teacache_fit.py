"""Fits TeaCache's polynomial to each demo model (omnicache/pilots.py), and for videos the motion that
AdaCache's regularisation compares with: on uncached runs of prompts and seeds of no arm of the quality bench.

    .host/venv/bin/python bench/teacache_fit.py

Writes bench/out/teacache.json. x: relative change of the first block's modulated input from one step to the
next; y: that of the residual of all blocks; one pair for each sample and step.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench"), str(ROOT / "demo")]

OUT = ROOT / "bench" / "out" / "teacache.json"
SEED = 910_000  # of no arm of the bench


class Watch:
    """Sees the first conditioning's rows in each call of a demo model: what comes into the first block's
    attention, the residual of all blocks, and what the middle block's attention gives."""

    def __init__(self, demo, samples: int) -> None:
        """demo: a DemoModel."""
        self._samples = samples
        self.signals: list = []
        self.residuals: list = []
        self.attentions: list = []
        if demo.kind == "image":  # blocks take and give (text, image)
            blocks = demo.model.model.diffusion_model.joint_blocks
            entry, middle = blocks[0].x_block.attn.qkv, blocks[len(blocks) // 2].x_block.attn.proj
            stream = 1
        else:
            blocks = demo.model.model.diffusion_model.blocks
            entry, middle = blocks[0].self_attn, blocks[len(blocks) // 2].self_attn
            stream = 0
        self._hooks = [
            entry.register_forward_pre_hook(lambda _, given: self._see(self.signals, given[0])),
            middle.register_forward_hook(lambda _, __, out: self._see(self.attentions, out)),
            blocks[0].register_forward_pre_hook(lambda _, given: self._see(self.residuals, given[stream])),
            blocks[-1].register_forward_hook(
                lambda _, __, out: self._end(out[stream] if isinstance(out, tuple) else out)
            ),
        ]

    def _see(self, seen: list, tensor) -> None:
        seen.append(tensor[: self._samples].float().clone())

    def _end(self, last) -> None:
        self.residuals[-1] = last[: self._samples].float() - self.residuals[-1]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def changes(seen: list) -> np.ndarray:
    """(steps - 1, samples) relative changes from step to step."""
    from comfyui_omnicache.omnicache.pilots import relative_change

    pairs = zip(seen, seen[1:], strict=False)
    return np.array(
        [[relative_change(*of_sample) for of_sample in zip(*pair, strict=True)] for pair in pairs]
    )


def fitted(demo, steps: int, samples: int) -> dict[str, Any]:
    """demo: a DemoModel."""
    from comfyui_omnicache.omnicache.pilots import fit_polynomial, motion_of
    from omnicache_demo.nodes import LATENT_SHAPE
    from prompts import drawn_prompts

    watch, started = Watch(demo, samples), time.monotonic()
    demo.latents(demo.model, "euler", steps, drawn_prompts(demo.kind, SEED, samples), seed=SEED)
    watch.remove()
    x, y = changes(watch.signals), changes(watch.residuals)
    polynomial, explained = fit_polynomial(x.ravel(), y.ravel())
    found = {
        "steps": steps, "samples": samples, "seconds": round(time.monotonic() - started, 1),
        "polynomial": polynomial, "r2": round(explained, 4),
        "signal_change": [round(float(value), 5) for value in x.mean(1)],
        "residual_change": [round(float(value), 5) for value in y.mean(1)],
    }  # fmt: skip
    if demo.kind == "video":
        frames = LATENT_SHAPE["video"][1]
        motions = [motion_of(each.unflatten(1, (frames, -1))) for each in watch.attentions]
        found["typical_motion"] = round(float(np.median(motions)), 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", choices=("image", "video"), default=["image", "video"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--samples", type=int, default=4)
    given = parser.parse_args()
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    for kind in given.model:
        results[kind] = fitted(DemoModel(kind), given.steps, given.samples)
        OUT.write_text(json.dumps(results, indent=1) + "\n")
        print(kind, {key: value for key, value in results[kind].items() if "change" not in key}, flush=True)


if __name__ == "__main__":
    main()
