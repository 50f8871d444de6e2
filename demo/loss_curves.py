"""Draws the training logs of the demo models as demo/models/loss.png."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    figure, axis = pyplot.subplots(figsize=(7, 3))
    for model in ("image", "video"):
        lines = (ROOT / ".host" / "train" / f"{model}.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        steps, losses = zip(*((entry["step"], entry["loss"]) for entry in entries), strict=True)
        axis.plot(steps, losses, label=model, lw=0.8)
    axis.set(xlabel="training step", ylabel="loss (20 steps each)", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(ROOT / "demo" / "models" / "loss.png", dpi=110)


if __name__ == "__main__":
    main()
