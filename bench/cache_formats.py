"""What each way to keep the cache costs. Part of bench/speed.py."""

import statistics

import tables
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.report import RunReport
from comfyui_omnicache.omnicache.schedule import Schedule
from demo_model import DemoModel, psnr
from run_reports import reports

STEPS, BATCH = 30, 4
WAYS = [
    (granularity, dtype, device)
    for granularity in ("stack", "branch")
    for dtype, device in (("compute", "model"), ("bf16", "model"), ("fp8", "model"), ("compute", "cpu"))
]
TITLES = ("granularity", "cache_dtype", "cache_device", "PSNR, dB", "cache, bytes", "reused over full step")


def measure() -> list[dict]:
    """On the image demo model with its own profile: the picture's distance from the uncached one, the memory
    and the time of a reused step."""
    demo = DemoModel("image")
    schedule = Schedule(Budget("reuse ratio", 0.5), profile=demo.profile)
    plain = demo.sample(demo.model, "euler", STEPS, BATCH)
    rows = []
    for granularity, dtype, device in WAYS:
        patch = OmniCacheModelPatch.execute(demo.model, schedule, None, granularity, dtype, device).args[0]
        with reports() as found:
            demo.sample(patch, "euler", 10, BATCH)
            pictures = demo.sample(patch, "euler", STEPS, BATCH)
        rows.append(
            {
                "granularity": granularity,
                "dtype": dtype,
                "device": device,
                "psnr": round(psnr(pictures, plain), 2),
                "cache_bytes": found[-1].cache_bytes,
                "reuse_over_full": round(_reuse_over_full(found[-1]), 4),
            }
        )
    return rows


def _reuse_over_full(report: RunReport) -> float:
    times: dict[str, list[float]] = {"full": [], "reuse": []}
    for step, kind in report.step_kinds.items():
        if step:  # the first one also loads the model
            times[kind].append(report.step_seconds[step])
    return statistics.median(times["reuse"]) / statistics.median(times["full"])


def table(rows: list[dict], machine: str) -> list[str]:
    """Lines of Markdown."""
    return [
        f"## Ways to keep the cache, on {machine}",
        "",
        f"Image demo model (3 wide blocks, fp32), {STEPS} euler steps, half of them reused with the default "
        "correction. PSNR is to the uncached pictures. On a CPU the cache is in main memory already, so "
        "`cpu` costs nothing here.",
        "",
        *tables.table(TITLES, ([str(value) for value in row.values()] for row in rows)),
    ]
