"""Every sampler of the host on the image demo model: what 40 % reuse costs in quality with repay, without it
and as plain reuse, beside the plain sampler with as many computed steps. Writes the table of
docs/samplers.md.

    .host/venv/bin/python bench/sampler_table.py
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from command_line import parser_of
from tables import number, put_between, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

STEPS, REUSE, BATCH = 24, 0.4, 8


@dataclass(frozen=True)
class Row:
    """PSNR in dB to the uncached pictures of the same seed.

    evaluations: of one row of an uncached run. granularity: what auto keeps. repays: True if it is default.
    can_repay: True if the sampler's state can be put right. corrected: by default.
    """

    sampler: str
    evaluations: int
    granularity: str
    repays: bool
    can_repay: bool
    corrected: float
    with_repay: float
    without_repay: float
    uncorrected: float
    fewer_steps: float


def sampler_names() -> list[str]:
    from comfy.samplers import KSampler

    return list(KSampler.SAMPLERS)


def measure(demo, sampler: str, steps: int = STEPS, batch: int = BATCH) -> Row:
    """demo: a DemoModel. CFG++ samplers are measured at cfg 1, which they are made for."""
    from dataclasses import replace

    from comfy.samplers import sampler_object

    from comfyui_omnicache.nodes.cached_run import granularity_of
    from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
    from comfyui_omnicache.nodes.sampler_response import response_of
    from comfyui_omnicache.nodes.samplers import suited
    from comfyui_omnicache.omnicache.correction import Correction
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.schedule import Schedule
    from demo_model import psnr

    schedule, cfg = Schedule(Budget("reuse ratio", REUSE)), 1.0 if "cfg_pp" in sampler else 2.5
    calls = [0]

    def count(apply_model, arguments):
        calls[0] += arguments["input"].shape[0] // batch
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    counted = demo.model.clone()
    counted.set_model_unet_function_wrapper(count)
    plain = demo.sample(counted, sampler, steps, batch, cfg)
    usual = suited(Correction(), sampler, "flow")
    granularity = granularity_of("auto", usual, needs_branches=False, sampler=sampler)

    def cached(correction: Correction | None, kept: str = "auto") -> float:
        patch = OmniCacheModelPatch.execute(demo.model, schedule, correction, kept).args[0]
        return psnr(demo.sample(patch, sampler, steps, batch, cfg), plain)

    fewer = demo.sample(demo.model, sampler, round(steps * (1 - REUSE)), batch, cfg)
    return Row(
        sampler,
        calls[0] // 2,
        granularity,
        usual.repays,
        response_of(sampler_object(sampler), demo.sigmas(steps).tolist(), demo.model) is not None,
        cached(None),
        cached(replace(usual, repay=1.0)),
        cached(replace(usual, repay=0.0)),
        cached(Correction("off")),
        psnr(fewer, plain),
    )


def table_of(rows: list[Row]) -> list[str]:
    from comfyui_omnicache.nodes.samplers import FREE_RUNNING_SAMPLERS, suited
    from comfyui_omnicache.omnicache.correction import Correction

    plain = f"{round(STEPS * (1 - REUSE))} plain steps"
    head = ("sampler", "evaluations", "kept", "repay", "with repay", "without", "plain reuse", plain)
    cells = []
    for row in rows:
        if row.sampler in FREE_RUNNING_SAMPLERS:
            cells.append([row.sampler, str(row.evaluations), "runs uncached", *["-"] * 5])
            continue
        values = (row.with_repay, row.without_repay, row.uncorrected, row.fewer_steps)
        shown = [f"**{number(value)}**" if value == max(values) else number(value) for value in values]
        if not row.can_repay:
            shown[0] = "-"
        always = suited(Correction(), row.sampler, "epsilon").repays
        repay = "none" if not row.can_repay else "on" if always else "flow"
        cells.append([row.sampler, str(row.evaluations), row.granularity, repay, *shown])
    return table(head, cells)


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
    put_between(ROOT / "docs" / "samplers.md", "bench/sampler_table.py", table_of(rows))


if __name__ == "__main__":
    main()
