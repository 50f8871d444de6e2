"""Time and memory of the pack on a model whose blocks take nearly all of the time: random weights, ratios
within one interleaved run. Writes bench/out/speed.json, or speed_real.json, and of both docs/speed.md.

    .host/venv/bin/python bench/speed.py           a Wan of 24 blocks at this machine's size
    .host/venv/bin/python bench/speed.py --real    Flux 12B and Wan 14B in bf16 (needs a GPU of 80 GB)
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "host")]

from in_process import load_host, load_pack  # noqa: E402

load_host()
IMPORT_CODE = """
import asyncio, time
started = time.perf_counter()
asyncio.run(asyncio.run(load_pack().comfy_entrypoint()).get_node_list())
print(time.perf_counter() - started)
"""
load_pack()

import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode  # noqa: E402

import cache_formats  # noqa: E402
import tiny_models  # noqa: E402
from comfyui_omnicache.nodes import messages  # noqa: E402
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch  # noqa: E402
from comfyui_omnicache.nodes.trajectory_calibrator import TrajectoryCalibrator  # noqa: E402
from comfyui_omnicache.omnicache.families import family_of  # noqa: E402
from comfyui_omnicache.omnicache.plan import Budget  # noqa: E402
from comfyui_omnicache.omnicache.schedule import Schedule  # noqa: E402
from comfyui_omnicache.omnicache.tap import StackTap  # noqa: E402
from tiny_models import conditioning  # noqa: E402

STEPS = 20
RIVALS = {"easycache": EasyCacheNode, "lazycache": LazyCacheNode}


@dataclass(frozen=True)
class Size:
    """A random model: its family in tiny_models, and what its configuration has instead. tokens: of the text.
    rivals: whether the host's own caches are timed beside it."""

    name: str
    family: str
    latent: tuple[int, ...]
    dtype: torch.dtype
    config: dict[str, object]
    tokens: int = 4
    rounds: int = 5
    rivals: bool = True


HERE = (
    Size("Wan, 24 blocks, width 256, 1024 tokens, fp32", "wan", (16, 4, 32, 32), torch.float32,
         dict(dim=256, ffn_dim=1024, num_heads=2, num_layers=24)),
)  # fmt: skip
REAL = (
    Size("Flux 12B, 1024 x 1024, bf16", "flux", (16, 128, 128), torch.bfloat16,
         dict(hidden_size=3072, num_heads=24, mlp_ratio=4.0, depth=19, depth_single_blocks=38,
              axes_dim=[16, 56, 56]), tokens=512, rounds=3),
    Size("Wan 14B, 33 frames of 480 x 832, bf16", "wan", (16, 9, 60, 104), torch.bfloat16,
         dict(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40), tokens=512, rounds=1, rivals=False),
)  # fmt: skip
OUT, FILES = ROOT / "bench" / "out", ("speed.json", "speed_real.json")

reports: list = []
messages.announce = reports.append
replays: list[float] = []  # milliseconds of each forward without blocks
replay = StackTap.replay


def timed_replay(tap: StackTap, *args: object, **options: object) -> torch.Tensor:
    _wait()
    started = time.perf_counter()
    out = replay(tap, *args, **options)
    _wait()
    replays.append((time.perf_counter() - started) * 1000)
    return out


def model_of(size: Size):
    """A random model of the host's class in a size of our own, made where it computes."""
    tiny = tiny_models.MODELS[size.family]
    unet, text = {**tiny.unet, **size.config}, (1, size.tokens, tiny_models.WIDTH)
    tiny_models.MODELS["sized"] = replace(tiny, unet=unet, shape=size.latent, text=text)
    return tiny_models.build("sized", size.dtype, comfy.model_management.get_torch_device())


def sample(model, steps: int = STEPS) -> float:
    """Seconds of a sampling run without guidance: one row at each step."""
    empty = torch.zeros(1, *tiny_models.MODELS["sized"].shape)
    noise = comfy.sample.prepare_noise(empty, 1)
    _wait()
    started = time.perf_counter()
    with torch.inference_mode():
        comfy.sample.sample(
            model, noise, steps, 1.0, "euler", "simple", conditioning("sized", 1), conditioning("sized", 2),
            empty, seed=1, disable_pbar=True,
        )  # fmt: skip
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def calibrate(model) -> tuple[float, object]:
    empty = torch.zeros(1, *tiny_models.MODELS["sized"].shape)
    started = time.perf_counter()
    with torch.inference_mode():
        out = TrajectoryCalibrator.execute(
            model, conditioning("sized", 1), conditioning("sized", 2), {"samples": empty}, 1, STEPS, 1.0,
            "euler", "simple", 1.0, 1, "", None,
        )  # fmt: skip
    return time.perf_counter() - started, out.args[0]


def compare(model, size: Size) -> Iterator[dict[str, float]]:
    """Figures so far, again and again until all are there: interleaved rounds of all ways to sample, as
    medians of the ratios to the plain runs before and after, for the speed of a shared machine drifts."""
    sample(model, 3)
    _, profile = calibrate(model)

    def reusing(ratio: float):
        return OmniCacheModelPatch.execute(
            model, Schedule(Budget("reuse ratio", ratio), profile=profile)
        ).args[0]

    patches = {0.5: reusing(0.5), 0.6: reusing(0.6)}
    sample(patches[0.5])
    arms: dict[str, Callable[[], float]] = {
        "speedup_50": lambda: sample(patches[0.5]),
        "speedup_60": lambda: sample(patches[0.6]),
        "calibration": lambda: calibrate(model)[0],
    }
    for name, node in RIVALS.items() if size.rivals else ():
        arms[f"{name}_speedup"] = partial(_sample_rival, model, node)
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    full, reused = [], []
    before = sample(model)
    for number in range(size.rounds):
        for name, arm in arms.items():
            reports.clear()
            own = arm()
            if name == "speedup_50":
                kinds, times = (reports[0].as_dict()[key] for key in ("step_kinds", "step_milliseconds"))
                reused += [t for kind, t in zip(kinds[1:], times[1:], strict=True) if kind == "reuse"]
            after = sample(model)
            ratios[name].append((before + after) / 2 / own)
            full.append(after / STEPS * 1000)
            before = after
            print(
                f"round {number + 1} of {size.rounds}: {name} {own:.2f} s, {ratios[name][-1]:.3f}", flush=True
            )
            yield _figures(ratios, full, reused)
    yield {
        **_figures(ratios, full, reused),
        "shadow_over_full": round(_shadow(patches[0.5]) / statistics.median(full), 4),
        **_memory(model, patches[0.5]),
        **_planning(profile),
    }


def _figures(
    ratios: dict[str, list[float]], full: Sequence[float], reused: Sequence[float]
) -> dict[str, float]:
    """full, reused: milliseconds of steps."""
    found = {name: statistics.median(each) for name, each in ratios.items() if each}
    one, overhead = statistics.median(full), {}
    if "calibration" in found:
        overhead["calibration_over_plain"] = round(1 / found.pop("calibration"), 3)
    return {
        "full_ms": round(one, 2),
        "reuse_over_full": round(statistics.median(reused) / one, 4),
        **{name: round(ratio, 3) for name, ratio in found.items()},
        **overhead,
    }


def _sample_rival(model, node) -> float:
    return sample(node.execute(model, 0.2, 0.15, 0.95, False).args[0])


def _shadow(patch) -> float:
    """Milliseconds of a forward without blocks; the first one of a run is a shadow, the others are alike."""
    replays.clear()
    StackTap.replay = timed_replay
    try:
        sample(patch)
    finally:
        StackTap.replay = replay
    return statistics.median(replays)


def _memory(model, patch) -> dict[str, float]:
    """What a lane keeps, in hidden states, by what the run reported."""
    reports.clear()
    sample(patch)
    hidden: list[int] = []
    lists = family_of(model.model.diffusion_model).lists
    block = next(iter(attrgetter(lists[0].attribute)(model.model.diffusion_model)))

    def note_size(module, args, out) -> None:
        hidden.append((out[0] if isinstance(out, tuple) else out).nbytes)

    hook = block.register_forward_hook(note_size)
    sample(model, 3)
    hook.remove()
    found = {
        "cache_tensors_per_lane": round(reports[0].cache_bytes / hidden[0], 3),
        "hidden_state_bytes": hidden[0],
    }
    if torch.cuda.is_available():
        found["peak_over_plain_bytes"] = _peak(patch) - _peak(model)
    return found


def _peak(model) -> int:
    """Bytes of the GPU's memory that tensors take, at most, in a short run."""
    torch.cuda.reset_peak_memory_stats()
    sample(model, 8)
    return torch.cuda.max_memory_allocated()


def _planning(profile) -> dict[str, float]:
    """Milliseconds of solving plans, with the reading of the profile."""
    schedule, medians = Schedule(Budget("reuse ratio", 0.6), profile=profile), {}
    for steps in (50, 250, 1000):
        sigmas, times = np.append(np.linspace(1.0, 0.004, steps), 0.0), []
        for _ in range(5):
            started = time.perf_counter()
            schedule.plan_for(sigmas)
            times.append(time.perf_counter() - started)
        medians[f"planning_ms_{steps}"] = round(statistics.median(times) * 1000, 2)
    return medians


def import_seconds() -> float:
    """Of the pack in a process that has the host loaded already."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); "
        f"from in_process import load_host, load_pack; load_host()\n{IMPORT_CODE}"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    return round(statistics.median(float(run.split()[-1]) for run in runs), 3)


def growth() -> list[dict]:
    """How the cost of a reuse step, the cache and the planning grow."""
    rows = []
    for name, blocks, side in (
        ("base", 24, 16),
        ("twice the blocks", 48, 16),
        ("four times the tokens", 24, 32),
    ):
        config = dict(dim=256, ffn_dim=1024, num_heads=2, num_layers=blocks)
        model = model_of(Size(name, "wan", (16, 4, side, side), torch.float32, config))
        schedule = Schedule(Budget("reuse ratio", 0.5), cost="even")
        patch = OmniCacheModelPatch.execute(model, schedule).args[0]
        sample(patch, 12)
        reports.clear()
        sample(patch, 12)
        facts = reports[0].as_dict()
        steps = list(zip(facts["step_kinds"][1:], facts["step_milliseconds"][1:], strict=True))
        times = {kind: [ms for own, ms in steps if own == kind] for kind in ("full", "reuse")}
        rows.append({
            "case": name, "blocks": blocks, "tokens": 4 * (side // 2) ** 2,
            "full_ms": round(statistics.median(times["full"]), 2),
            "reuse_ms": round(statistics.median(times["reuse"]), 2), "cache_bytes": facts["cache_bytes"],
        })  # fmt: skip
    return rows


def document(results: Sequence[dict]) -> str:
    lines = [
        "# Speed and memory",
        "",
        f"Random weights, {STEPS} steps, no guidance, as ratios to the plain runs before and after, medians "
        "where there are several rounds. The correction is on. The host's EasyCache and LazyCache (threshold "
        "0.2) stand beside it without quality: on random weights there is none to compare.",
        "",
    ]
    for result in results:
        for model in result["models"]:
            lines += [
                f"## {model['name']}", "",
                f"Made by `.host/venv/bin/python {result['command']}` on {result['machine']}; "
                f"interleaved rounds: {model['rounds']}.", "", "| figure | value |", "|---|---|",
            ]  # fmt: skip
            lines += [f"| {key} | {value} |" for key, value in model.items() if key not in ("name", "rounds")]
            lines.append("")
    for result in results:
        if result["growth"]:
            titles = ("case", "blocks", "tokens", "full step, ms", "reused step, ms", "cache, bytes")
            lines += [f"## Growth, on {result['machine']}", "", f"| {' | '.join(titles)} |"]
            lines += ["|---|---|---|---|---|---|"]
            lines += [f"| {' | '.join(map(str, row.values()))} |" for row in result["growth"]]
            lines.append("")
        if result["formats"]:
            lines += [*cache_formats.table(result["formats"], result["machine"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", action="store_true", help="Flux 12B and Wan 14B in bf16, on a GPU of 80 GB")
    options = parser.parse_args()
    if options.real and not torch.cuda.is_available():
        sys.exit("--real needs a GPU, and torch sees none here. Run it without --real.")
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    machine += "" if torch.cuda.is_available() else f", {torch.get_num_threads()} threads"
    result = {
        "machine": machine, "command": "bench/speed.py" + " --real" * options.real,
        "torch": torch.__version__, "models": [], "growth": [], "formats": [],
    }  # fmt: skip
    for size in REAL if options.real else HERE:
        model = model_of(size)
        others = result["models"]
        for figures in compare(model, size):
            result["models"] = [*others, {"name": size.name, "rounds": size.rounds, **figures}]
            write(result, FILES[options.real])
        del model
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
    if not options.real:
        result["import_s"], result["growth"] = import_seconds(), growth()
    result["formats"] = cache_formats.measure()
    write(result, FILES[options.real])
    print(json.dumps(result, indent=1))


def write(result: dict, name: str) -> None:
    """What is there so far, and the document of it and of what other machines measured."""
    first = {key: value for key, value in result["models"][0].items() if key not in ("name", "rounds")}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps({**result, **first}, indent=1) + "\n", encoding="utf-8")
    there = [path for path in (OUT / FILES[True], OUT / FILES[False]) if path.exists()]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in there]
    (ROOT / "docs" / "speed.md").write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
