"""What the pack gains on the demo models: a real ComfyUI samples them with and without it, through its HTTP
API.

Writes demo/out/: pictures side by side, the plot of curvature and gamma, report.json and report.md. Every
figure is measured here, now: wall-clock of the sampler node, medians of interleaved rounds after a warm-up.
"""

import copy
import io
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

from host_server import Event, HostServer  # noqa: E402
from measures import psnr, ssim  # noqa: E402

OUT = ROOT / "demo" / "out"
STEPS, ROUNDS = 50, 3
AMPLIFIED = 10  # how much a shown difference is
BATCH = {"image": 32, "video": 3}
PROMPTS = {"image": ("fox on blue", "car on yellow", "panda on red", "burger on teal"),
           "video": ("penguin bouncing on orange", "rocket sliding on teal", "frog growing on purple",
                     "star spinning on blue")}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to sample. reuse: share of the steps reused; mode: of the correction; steps: of the sampler."""

    method: str
    reuse: float
    steps: int = STEPS
    mode: str = "forecast"
    cost: str = "reach"

    @property
    def label(self) -> str:
        if self.method == "fewer-steps":
            return f"{self.steps} plain steps"
        return "uncached" if self.method == "uncached" else f"{self.method}, {self.reuse:.0%} reused"


ARMS = (
    Arm("uncached", 0.0),
    Arm("omnicache", 0.5),
    Arm("omnicache", 0.6),
    Arm("omnicache-paper", 0.5, mode="paper", cost="curvature"),
    Arm("omnicache-paper", 0.6, mode="paper", cost="curvature"),
    Arm("fewer-steps", 0.5, steps=STEPS // 2),
    Arm("fewer-steps", 0.6, steps=STEPS * 2 // 5),
)
# Short runs of the same code: the allocator and the thread pools then know every shape.
WARM_UP = (Arm("uncached", 0.0, steps=10), Arm("omnicache", 0.5, steps=10))


@dataclass
class Result:
    """One run of an arm: pictures (count, height, width, 3) in 0..1, the sampler's seconds, evaluations."""

    pictures: np.ndarray
    seconds: float
    full: int
    asked: int


def prompt_for(arm: Arm, model: str, number: int) -> dict:
    """The committed workflow with this arm's settings. Seed and prompt change from round to round."""
    workflow = json.loads((ROOT / "example_workflows" / "api" / f"{model}_generate.json").read_text())
    workflow = copy.deepcopy(workflow)
    workflow["positive"]["inputs"]["prompt"] = PROMPTS[model][number % len(PROMPTS[model])]
    workflow["empty"]["inputs"]["batch_size"] = BATCH[model]
    workflow["sample"]["inputs"].update(seed=100 + number, steps=arm.steps)
    workflow["decode"]["inputs"]["layout"] = "separate"
    if arm.method.startswith("omnicache"):
        paper = arm.method == "omnicache-paper"
        workflow["schedule"]["inputs"].update(budget=arm.reuse, cost=arm.cost)
        workflow["correction"]["inputs"].update(mode=arm.mode, filter="low-high" if paper else "off")
    else:
        workflow["sample"]["inputs"]["model"] = ["load", 0]
        for name in ("schedule", "correction", "patch"):
            del workflow[name]
    return workflow


def measure(server: HostServer, arm: Arm, model: str, number: int) -> Result:
    """Queues one prompt and times its sampler node by the host's own messages."""
    began, seconds, facts = 0.0, 0.0, {}

    def on_event(event: Event) -> None:
        nonlocal began, seconds
        if event["type"] == "executing" and event["data"]["node"] == "sample":
            began = time.perf_counter()
        elif event["type"] == "executing" and began and not seconds:
            seconds = time.perf_counter() - began
        elif event["type"] == "omnicache.run":
            facts.update(event["data"])

    history = server.run(prompt_for(arm, model, number), on_event)
    pictures = [
        np.asarray(Image.open(io.BytesIO(server.view(image))).convert("RGB")).astype(np.float64) / 255
        for image in history["outputs"]["save"]["images"]
    ]
    asked = 2 * arm.steps  # a row with and one without the prompt at each step
    return Result(np.stack(pictures), seconds, facts.get("full", asked), facts.get("asked", asked))


def run_model(server: HostServer, model: str) -> tuple[list[dict], dict[Arm, list[Result]]]:
    """All arms of one model, interleaved: rows of the report, and the results of each round."""
    results: dict[Arm, list[Result]] = {arm: [] for arm in ARMS}
    for arm in WARM_UP:
        show(f"{model}: warm-up, {arm.label}")
        measure(server, arm, model, 0)
    for number in range(1, ROUNDS + 1):
        for place, arm in enumerate(ARMS, start=1):
            show(f"{model}: round {number} of {ROUNDS}, {place}/{len(ARMS)} {arm.label}")
            results[arm].append(measure(server, arm, model, number))
    rows = []
    for arm, measured in results.items():
        seconds = statistics.median(result.seconds for result in measured)
        ratios = [
            base.seconds / result.seconds for base, result in zip(results[ARMS[0]], measured, strict=True)
        ]
        pairs = list(zip(measured, results[ARMS[0]], strict=True))
        rows.append(
            {
                "model": model, "method": arm.method, "reuse": arm.reuse, "steps": arm.steps,
                "sampler": "euler",
                "full": measured[0].full, "asked": measured[0].asked, "seconds": round(seconds, 3),
                "speedup": round(statistics.median(ratios), 3),
                "psnr": round(statistics.mean(psnr(a.pictures, b.pictures) for a, b in pairs), 2),
                "ssim": round(statistics.mean(ssim(a.pictures, b.pictures) for a, b in pairs), 4),
            }
        )  # fmt: skip
    show(f"{model}: done", end="\n")
    return rows, results


def save_sheet(model: str, results: dict[Arm, list[Result]]) -> None:
    """One row an arm: pictures of each round (or frames of one video), and what differs from uncached."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    arms = [arm for arm in ARMS if arm.method != "omnicache-paper"]
    shown = {
        arm: results[arm][0].pictures[:8]
        if model == "video"
        else np.concatenate([result.pictures[:3] for result in results[arm]])
        for arm in arms
    }
    figure, axes = pyplot.subplots(len(arms), 2, figsize=(16, 1.2 * len(arms)))
    for (left, right), arm in zip(axes, arms, strict=True):
        difference = np.clip(np.abs(shown[arm] - shown[ARMS[0]]) * AMPLIFIED, 0, 1)
        for axis, pictures in ((left, shown[arm]), (right, difference)):
            axis.imshow(np.concatenate(list(pictures), axis=1), interpolation="nearest")
            axis.axis("off")
        left.set_title(arm.label, loc="left", fontsize=9, pad=3)
        right.set_title(f"difference from uncached, {AMPLIFIED} times", loc="left", fontsize=9, pad=3)
    axes[0, 1].set_visible(False)
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT / f"{model}.png", dpi=90)
    pyplot.close(figure)


def save_plot(model: str, history: dict) -> None:
    """Curvature and gamma against timestep, with the reused steps as bands: what the widget shows."""
    from matplotlib import pyplot

    plot = history["outputs"]["schedule"]["omnicache_plot"][0]
    figure, left = pyplot.subplots(figsize=(9, 3.2))
    right = left.twinx()
    timesteps = np.array(plot["timesteps"])
    edges = np.concatenate(([timesteps[0]], (timesteps[1:] + timesteps[:-1]) / 2, [timesteps[-1]]))
    for step, reused in enumerate(plot["reused"]):
        if reused:
            left.axvspan(edges[step], edges[step + 1], color="0.88", lw=0)
    left.plot(
        timesteps, np.degrees(np.array(plot["curvature"], dtype=float)), color="#0072B2", label="curvature"
    )
    right.plot(timesteps, np.array(plot["gamma"], dtype=float), "--", color="#D55E00", label="gamma")
    left.set(xlabel="timestep", ylabel="turning angle, degrees", xlim=(timesteps[0], timesteps[-1]))
    right.set_ylabel("gamma")
    left.set_title(f"{plot['title']}: {plot['full']} of {plot['asked']} computed", loc="left", fontsize=10)
    figure.legend(loc="upper right", fontsize=8, ncols=2, frameon=False)
    figure.tight_layout()
    figure.savefig(OUT / f"{model}_plot.png", dpi=110)
    pyplot.close(figure)


def table(rows: list[dict]) -> str:
    """The report as Markdown."""
    lines = [
        "| model | method | evaluations run / asked | seconds | speed-up | PSNR dB | SSIM |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = row["method"] + (f", {row['reuse']:.0%}" if row["method"].startswith("omnicache") else "")
        name += f", {row['steps']} steps" if row["method"] == "fewer-steps" else ""
        quality = ("-", "-") if row["method"] == "uncached" else (f"{row['psnr']:.2f}", f"{row['ssim']:.4f}")
        lines.append(
            f"| {row['model']} | {name} | {row['full']} / {row['asked']} | {row['seconds']:.2f} | "
            f"{row['speedup']:.2f}x | {quality[0]} | {quality[1]} |"
        )
    return "\n".join(lines) + "\n"


def show(text: str, end: str = "") -> None:
    """A progress line that replaces itself on a terminal."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end=end, flush=True)
    else:
        print(text, flush=True)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    started, rows = time.monotonic(), []
    with HostServer() as server:
        show(f"ComfyUI runs at {server.address}", end="\n")
        for model in ("image", "video"):
            measured, results = run_model(server, model)
            rows += measured
            save_sheet(model, results)
            save_plot(model, server.run(prompt_for(ARMS[2], model, 0)))
    (OUT / "report.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    text = table(rows)
    (OUT / "report.md").write_text(
        f"# Demo report\n\n{STEPS} euler steps; medians of {ROUNDS} interleaved rounds. PSNR and SSIM are to "
        "the uncached pictures. fewer-steps is the control: the plain sampler with as many steps as the "
        f"cached one computes.\n\n{text}"
    )
    seconds = time.monotonic() - started
    print(f"\n{text}\nPictures, plots and report are in {OUT.relative_to(ROOT)}/ ({seconds:.0f} s).")


if __name__ == "__main__":
    main()
