"""Every sampler of the host on the image demo model: what 40 % reuse costs in quality with and without the
correction, beside the plain sampler with as many computed steps. Writes docs/samplers.md.

    .host/venv/bin/python bench/sampler_table.py
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from command_line import parser_of
from tables import number, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

STEPS, REUSE, BATCH = 24, 0.4, 8


@dataclass(frozen=True)
class Row:
    """PSNR in dB to the uncached pictures of the same seed."""

    sampler: str
    evaluations: int  # of one row of an uncached run
    corrected: float
    uncorrected: float
    fewer_steps: float


def sampler_names() -> list[str]:
    from comfy.samplers import KSampler

    return list(KSampler.SAMPLERS)


def measure(demo, sampler: str, steps: int = STEPS, batch: int = BATCH) -> Row:
    """demo: a DemoModel. CFG++ samplers are measured at cfg 1, which they are made for."""
    from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
    from comfyui_omnicache.omnicache.correction import Correction
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.schedule import Schedule
    from demo_model import psnr

    schedule = Schedule(Budget("reuse ratio", REUSE), profile=demo.profile)
    cfg = 1.0 if "cfg_pp" in sampler else 2.5
    calls = [0]

    def count(apply_model, arguments):
        calls[0] += arguments["input"].shape[0] // batch
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    counted = demo.model.clone()
    counted.set_model_unet_function_wrapper(count)
    plain = demo.sample(counted, sampler, steps, batch, cfg)
    patches = [
        OmniCacheModelPatch.execute(demo.model, schedule, correction).args[0]
        for correction in (None, Correction("off"))
    ]
    corrected, uncorrected = (
        psnr(demo.sample(patch, sampler, steps, batch, cfg), plain) for patch in patches
    )
    fewer = demo.sample(demo.model, sampler, round(steps * (1 - REUSE)), batch, cfg)
    return Row(sampler, calls[0] // 2, corrected, uncorrected, psnr(fewer, plain))


def document(rows: list[Row]) -> str:
    from comfyui_omnicache.nodes.samplers import FREE_RUNNING_SAMPLERS

    plain = f"{round(STEPS * (1 - REUSE))} plain steps"
    head = ("sampler", "evaluations a run", "reused, corrected", "reused, not corrected", plain)
    cells = []
    for row in rows:
        values = (row.corrected, row.uncorrected, row.fewer_steps)
        shown = [f"**{number(value)}**" if value == max(values) else number(value) for value in values]
        if row.sampler in FREE_RUNNING_SAMPLERS:
            shown = ["runs uncached", "runs uncached", "-"]
        cells.append([row.sampler, str(row.evaluations), *shown])
    lines = [
        "# Samplers",
        "",
        f"Image demo model, {STEPS} steps, {BATCH} pictures, {REUSE:.0%} of the steps reused with the "
        "shipped profile (calibrated with euler), cfg 2.5 (CFG++ samplers: 1). PSNR in dB to the uncached "
        f"pictures of the same seed. *{plain}* is the uncached sampler with "
        "as many computed steps. Made by `.host/venv/bin/python bench/sampler_table.py`.",
        "",
        *table(head, cells),
        "",
        "Ancestral and SDE samplers draw other noise with fewer steps, so that column compares another "
        "picture there; reuse keeps the picture of the seed. For them the default forecast is of order 1: "
        "new noise at each step bends no parabola. With few steps the euler profile promises them "
        "too much: calibrate with the sampler that you use. CFG++ samplers and `lcm` amplify any small "
        "difference: take another sampler if the picture must stay. `dpm_fast` and `dpm_adaptive` choose "
        "their own steps: with them the patch says so and runs uncached.",
        "",
        "UniPC's corrector is computed by the host in float32, in which its coefficients lose their digits "
        "where neighbouring noise levels differ by less than half a percent, as the first 15 of 50 steps do "
        "at the video model's shift of 8: they come out up to ten times too large, and magnify what reuse "
        "of those steps leaves. With 50 steps the demo's videos have 53.5 dB with `uni_pc` and 64.4 with "
        "`euler` at 50 % reused, 59.9 and 62.6 at 60 %: it depends on which of these steps a plan reuses. "
        "With 30 steps or fewer `uni_pc` is less than 4 dB behind `euler` "
        "([quality_video.md](quality_video.md)).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser_of(__doc__).parse_args()
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    from demo_model import DemoModel

    demo, rows = DemoModel("image"), []
    for sampler in sampler_names():
        rows.append(measure(demo, sampler))
        print(rows[-1], flush=True)
    (ROOT / "docs" / "samplers.md").write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
