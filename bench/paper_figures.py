"""The figures of docs/paper.md, drawn from the results of bench/paper_report.py."""

from pathlib import Path
from typing import Any

import numpy as np

from paper_findings import Results, drawn
from paper_tasks import MODELS, budgets

# Colours that stay apart for the colour-blind (Okabe-Ito).
BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "0.55"
SHOWN = 8  # trajectories drawn of each model


def save_all(results: Results, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "omnicache",  # the same rows give the same file
            "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False,
            "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
            "legend.fontsize": 8,
        }
    )  # fmt: skip
    figures = {
        "trajectories": trajectories, "curvature": curvature, "early_late": early_late, "error": error,
        "ablation": ablation, "plans": plans,
    }  # fmt: skip
    for name, draw in figures.items():
        figure = draw(results)
        if figure is None:
            continue
        figure.savefig(folder / f"paper_{name}.png", dpi=110)
        figure.savefig(folder / f"paper_{name}.svg", metadata={"Date": None})
        matplotlib.pyplot.close(figure)


def grid(
    rows: int, columns: int, width: float = 10.0, height: float = 2.9, **options: Any
) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns), `height` inches a row."""
    from matplotlib import pyplot

    return pyplot.subplots(
        rows, columns, figsize=(width, height * rows), squeeze=False, layout="constrained", **options
    )


def plain_log(axis: Any) -> None:
    """A logarithmic vertical axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    marks = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0)
    axis.yaxis.set_major_locator(LogLocator(subs=marks))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def trajectories(results: Results) -> Any:
    figure, axes = grid(len(results.models), 2, width=9.0)
    for (left, right), model in zip(axes, results.models, strict=True):
        row = results.trajectories(model)
        points = np.array(row["coordinates"])  # (samples, states, 3)
        for number, each in enumerate(points[:SHOWN]):
            labels = ("w1", "w2") if number == 0 else (None, None)
            left.plot(each[:, 0], each[:, 1], color=BLUE, lw=0.9, alpha=0.7, label=labels[0])
            left.plot(each[:, 0], each[:, 2], color=ORANGE, lw=0.9, alpha=0.7, label=labels[1])
        left.invert_xaxis()  # from noise to sample, as in the other figures
        left.set(title=f"{model}: {min(SHOWN, len(points))} samples", ylabel="off the axis")
        left.legend(loc="best")
        angles = np.degrees(np.array(row["turning"]))
        steps, mean, spread = np.arange(1, angles.shape[1] + 1), angles.mean(0), angles.std(0)
        right.fill_between(steps, mean - spread, mean + spread, color=BLUE, alpha=0.2, lw=0)
        right.plot(steps, mean, color=BLUE, lw=1.8)
        right.set(title="turning angle", ylabel="degrees", ylim=(0, None))
    axes[-1, 0].set_xlabel("along the axis u, from noise to sample (0)")
    axes[-1, 1].set_xlabel("step")
    return figure


def curvature(results: Results) -> Any:
    figure, axes = grid(len(results.models), 3, width=11.0, height=2.6)
    for (first, second, third), model in zip(axes, results.models, strict=True):
        noise = results.noise(model)
        steps = np.arange(len(noise["turning"]))
        angles, gamma = np.degrees(noise["turning"]), noise["gamma"]
        _on_top(first, steps[1:], ("turning angle", angles[1:], BLUE), ("gamma", gamma[1:], RED))
        first.set(title=f"{model}: turning angle and gamma", ylabel="degrees")
        second.plot(steps[1:], noise["menger"][1:], color=GREEN, lw=1.6, label="Menger curvature, 1/length")
        second.plot(steps[1:], noise["relative_noise"][1:], color=PINK, lw=1.6, label="noise / output")
        second.set(title="Menger curvature and noise")
        plain_log(second)
        second.legend(loc="best")
        known = np.isfinite(noise["gamma"])
        dots = third.scatter(
            np.degrees(noise["turning"][known]),
            np.abs(noise["gamma"][known]),
            c=steps[known],
            cmap="viridis",
            s=16,
        )
        third.set(title="each step", ylabel="size of gamma")
        figure.colorbar(dots, ax=third, label="step")
    axes[-1, 0].set_xlabel("step")
    axes[-1, 1].set_xlabel("step")
    axes[-1, 2].set_xlabel("turning angle, degrees")
    return figure


def _on_top(axis: Any, steps: np.ndarray, *curves: tuple[str, np.ndarray, str]) -> None:
    """Two curves over one axis of steps, each with its own scale. curves: name, values and colour."""
    other = axis.twinx()
    other.spines["right"].set_visible(True)
    other.grid(False)
    lines = []
    for place, (name, values, colour) in zip((axis, other), curves, strict=True):
        lines += place.plot(steps, values, color=colour, lw=1.6, label=name)
        place.tick_params(axis="y", colors=colour)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.35 * (high - low))  # for the legend
    axis.legend(lines, [line.get_label() for line in lines], loc="upper left", ncols=2)


def early_late(results: Results) -> Any:
    figure, axes = grid(len(results.models), 3, width=11.0, height=2.6)
    for (first, second, third), model in zip(axes, results.models, strict=True):
        row, count = results.trajectories(model), MODELS[model].steps
        steps = np.arange(1, count)
        first.plot(
            steps, 100 * np.array(row["velocity_change"]), color=BLUE, lw=1.6, label="raw output (velocity)"
        )
        first.plot(steps, 100 * np.array(row["noise_change"]), color=ORANGE, lw=1.6, label="as noise")
        first.set(title=f"{model}: change from step to step", ylabel="%")
        plain_log(first)
        first.legend(loc="best")
        for is_late, colour in ((False, BLUE), (True, RED)):
            step, single = results.single(model, is_late)
            away = np.array(single["away"])
            after = np.arange(step + 1, count + 1)
            second.plot(
                after, away[after] / away[step + 1], color=colour, lw=1.6, label=f"step {step} reused"
            )
        second.axhline(1, color=GREY, lw=0.8, ls=":")
        second.set(title="error of one reused step, grown")
        plain_log(second)
        second.legend(loc="best")
        names = {"early-2": ("early", BLUE), "late-2": ("late", RED), "spread-2": ("spread", GREEN)}
        if model == "few-step":
            arms = [(results.single(model, is_late)[1], *names[f"{name}-2"])
                    for is_late, name in ((False, "early"), (True, "late"))]  # fmt: skip
        else:
            arms = [(results.part(model, part), *style) for part, style in names.items()]
        for arm, label, colour in arms:
            share = 100 * np.array(arm["share"])
            share[share < 1e-4] = np.nan  # nothing reused yet
            third.plot(np.arange(count + 1), share, color=colour, lw=1.6, label=label)
        what = "one step reused" if model == "few-step" else f"{arms[0][0]['reused']} steps reused"
        third.set(title=f"relative error, {what}", ylabel="%")
        plain_log(third)
        third.legend(loc="best")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def error(results: Results) -> Any:
    figure, axes = grid(1, len(results.models), width=11.0, height=3.6)
    for axis, model in zip(axes[0], results.models, strict=True):
        reused = budgets(model)[0]
        arms = (
            ("curvature", "off", "reuse", GREY),
            ("curvature", "paper", "+ correction", BLUE),
            ("curvature", "paper+filter", "+ filter", RED),
            ("reach", "default", "pack's default", GREEN),
        )
        for plan, mode, label, colour in arms:
            row = results.row(model, plan, reused, mode)
            share = 100 * np.array(row["share"])
            share[share < 1e-4] = np.nan  # nothing reused yet
            axis.plot(np.arange(len(share)), share, color=colour, lw=1.7, label=label)
        reused_steps = results.row(model, "curvature", reused, "off")["reused_steps"]
        plain_log(axis)
        axis.set(xlabel="step", title=f"{model}, {reused} of {MODELS[model].steps} reused")
        axis.plot(
            np.array(reused_steps), np.full(len(reused_steps), 0.02), "|", color="0.3", ms=5,
            transform=axis.get_xaxis_transform(), label="reused (curvature)",
        )  # fmt: skip
    axes[0, 0].set_ylabel("distance to uncached, % of its size")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def ablation(results: Results) -> Any:
    figure, axes = grid(1, len(results.models), width=11.0, height=3.6, width_ratios=_widths(results))
    styles = (("off", "reuse", GREY), ("paper", "+ correction", BLUE), ("paper+filter", "+ filter", RED))
    for axis, model in zip(axes[0], results.models, strict=True):
        ticks, names = [], []
        steps = MODELS[model].steps
        place = 0.0
        for reused in budgets(model):
            for plan in ("curvature", "even"):
                for number, (mode, label, colour) in enumerate(styles):
                    _bar(axis, place + number, results, (model, plan, reused, mode), colour, label)
                ticks.append(place + 1)
                names.append(f"{reused / steps:.0%}\n{plan}")
                place += 4
            _bar(axis, place, results, (model, "reach", reused, "default"), GREEN, "pack's default")
            _bar(axis, place + 1, results, (model, "fewer", reused, "off"), SKY, "fewer plain steps")
            ticks.append(place + 0.5)
            names.append(f"{reused / steps:.0%}\nothers")
            place += 3.5
        axis.set(title=model, xticks=ticks)
        axis.set_xticklabels(names, fontsize=7.5)
        axis.grid(axis="x", visible=False)
        lowest = min(bar.get_height() for bar in axis.patches)
        axis.set_ylim(bottom=10 * np.floor(lowest / 10 - 0.5))
    axes[0, 0].set_ylabel("PSNR to uncached, dB")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=5)
    return figure


def _widths(results: Results) -> list[int]:
    return [len(budgets(model)) for model in results.models]


def _bar(axis: Any, place: float, results: Results, arm: tuple, colour: str, label: str) -> None:
    psnr = results.summary(results.row(*arm))["psnr"]
    axis.bar(place, psnr["mean"], 0.9, yerr=psnr["half"], color=colour, label=label, error_kw={"lw": 0.8})


def plans(results: Results) -> Any:
    models = [model for model in results.models if drawn(results, model)]
    if not models:
        return None
    figure, axes = grid(1, len(models), width=8.0, height=2.4)
    for axis, model in zip(axes[0], models, strict=True):
        random = drawn(results, model)
        axis.plot(random, np.zeros(len(random)), "o", color=GREY, ms=6, alpha=0.6, label="random")
        marks = {
            "curvature": ("least turning angle", BLUE, "s"),
            "menger": ("least Menger curvature", SKY, "v"),
            "curviest": ("most turning angle", RED, "^"),
            "even": ("even", GREEN, "D"),
        }
        for plan, (label, colour, mark) in marks.items():
            row = results.row(model, plan, budgets(model)[0], samples=MODELS[model].few_samples)
            psnr = np.mean(row["psnr"]) if row else np.nan
            axis.plot([psnr], [0.5], mark, color=colour, ms=9, label=label)
        axis.set(title=model, xlabel="PSNR to uncached, dB", ylim=(-0.4, 0.9), yticks=[])
        axis.grid(axis="y", visible=False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    return figure
