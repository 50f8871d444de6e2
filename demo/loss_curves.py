"""Draws training logs: python demo/loss_curves.py picture.png .host/train/image.jsonl ..."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def main() -> None:
    picture, *logs = map(Path, sys.argv[1:])
    figure, axis = pyplot.subplots(figsize=(7, 3))
    for log in logs:
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        steps, losses = zip(*((entry["step"], entry["loss"]) for entry in entries), strict=True)
        axis.plot(steps, losses, label=log.stem, lw=0.8)
    axis.set(xlabel="training step", ylabel="loss (20 steps each)", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
