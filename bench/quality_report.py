"""Turns the rows of bench/quality.py into bench/out/quality.json, docs/quality.md with tables and a plot for
each model, and the README's table."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from demo_names import kind_of
from measures import frechet, precision_recall
from quality_tasks import IN_BF16, SETTINGS
from tables import put_between, table

ROOT = Path(__file__).resolve().parent.parent
OUT, DOCS, README = ROOT / "bench" / "out", ROOT / "docs", ROOT / "README.md"
MODELS = ("image", "video", "image_fewstep", "image_dit")
SAMPLERS = tuple(dict.fromkeys(sampler for sampler, _ in SETTINGS))
# Colours that stay apart for the colour-blind (Okabe-Ito); ours are thick.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osv^D<>Pp*Xhd"
OF_TODAY = ("omnicache", "omnicache-no-profile", "omnicache-no-repay", "omnicache-branch", "omnicache-stack")
NO_TIMES = {"seconds": None, "speedup": None}
COLUMNS = (
    "method", "budget", "evaluations", "FLOPs", "speed-up", "PSNR dB", "SSIM", "distance", "Frechet",
    "precision", "recall", "accuracy", "samples",
)  # fmt: skip


def aggregated(rows: Sequence[dict], folder: Path) -> list[dict]:
    """One row for each arm over its seeds, in the order of the documents. Arms measured with several numbers
    of samples: the most."""
    arms: dict[tuple, dict[int, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        arms[_arm(row)][row["samples"]].append(row)
    best = {
        arm: max(by_samples.values(), key=lambda of_arm: sum(row["samples"] for row in of_arm))
        for arm, by_samples in arms.items()
    }
    plain = {_base(row): row for row in rows if row["method"].startswith("uncached")}
    times = _times(rows, plain)
    return [
        {**_of_arm(best[name], plain, folder), **times.get(name, NO_TIMES)}
        for name in sorted(best, key=lambda name: _place(best[name][0]))
    ]


def with_kept(measured: Sequence[dict]) -> list[dict]:
    """With what an earlier run measured and this one did not. What the pack itself does by default is only
    true of today's."""
    file, again = OUT / "quality.json", {_arm_of(row) for row in measured}
    known = json.loads(file.read_text())["rows"] if file.exists() else []
    kept = [row for row in known if _arm_of(row) not in again and row["method"] not in OF_TODAY]
    place = {key: number for number, key in enumerate(_arm_of(row) for row in known)}
    return sorted(
        [*kept, *measured],
        key=lambda row: (*_place({**row, "steps": row["of_steps"], "reuse": row["budget"]}),
                         place.get(_arm_of(row), -1)),
    )  # fmt: skip


def _arm_of(row: dict) -> tuple:
    """Of an aggregated row."""
    return tuple(row[key] for key in ("model", "sampler", "of_steps", "budget", "method"))


def _times(rows: Sequence[dict], plain: dict[tuple, dict]) -> dict[tuple, dict[str, float]]:
    """CPU seconds of one sample and the speed-up of each arm, medians over all seeds that were timed, those
    with fewer samples too: on a GPU, which other arms use as well, none is."""
    timed: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        base = plain.get(_base(row), {}).get("seconds")
        if row["seconds"] and base:
            timed[_arm(row)].append((row["seconds"] / row["samples"], base / row["seconds"]))
    return {
        arm: {
            "seconds": round(statistics.median(own for own, _ in times), 4),
            "speedup": round(statistics.median(ratio for _, ratio in times), 3),
        }
        for arm, times in timed.items()
    }


def _arm(row: dict) -> tuple:
    return tuple(row[key] for key in ("model", "sampler", "steps", "reuse", "method"))


def _base(row: dict) -> tuple:
    """Of the uncached arm that a row is compared with."""
    method = "uncached-bf16" if row["method"] in IN_BF16 else "uncached"
    return row["model"], row["sampler"], row["steps"], row["seed"], row["samples"], method


def _place(row: dict) -> tuple:
    """Models, more steps before fewer, the samplers of each, budgets."""
    return MODELS.index(row["model"]), -row["steps"], SAMPLERS.index(row["sampler"]), row["reuse"]


def _of_arm(rows: Sequence[dict], plain: dict[tuple, dict], folder: Path) -> dict:
    """full, asked: of one seed, as in the demo's report."""
    row = rows[0]
    bases = [plain[_base(each)] for each in rows]
    computed = row["full"] / bases[0]["asked"]
    spread = {
        name: [value for each in rows for value in each[name]]
        for name in ("psnr", "ssim", "distance", "hits")
    }
    return {
        "model": row["model"], "method": row["method"], "budget": row["reuse"],
        "reuse": round(1 - computed, 4), "steps": row["sampled_steps"], "of_steps": row["steps"],
        "sampler": row["sampler"], "setting": row["setting"], "full": row["full"], "asked": row["asked"],
        # The newest knows what it is to be compared with: older ones left attention out on a CPU.
        "flops": round(rows[-1]["flops"] / rows[-1].get("flops_uncached", bases[-1]["flops"]), 4),
        "psnr": round(float(np.mean(spread["psnr"])), 2), "psnr_sd": round(float(np.std(spread["psnr"])), 2),
        "ssim": round(float(np.mean(spread["ssim"])), 4), "ssim_sd": round(float(np.std(spread["ssim"])), 4),
        "distance": float(f"{np.mean(spread['distance']):.4g}"),
        **_against_data(rows, bases, folder),
        "accuracy": round(float(np.mean(spread["hits"])), 4),
        "samples": sum(each["samples"] for each in rows), "seeds": len(rows),
    }  # fmt: skip


def _against_data(rows: Sequence[dict], bases: Sequence[dict], folder: Path) -> dict[str, float | None]:
    """Over the samples of all seeds together; the spread is that over the seeds apart. frechet_over: less
    what the uncached samples of the same seeds have, since fewer samples alone make the distance larger."""
    reference = _features(folder / f"data_{kind_of(rows[0]['model'])}.npy")
    features, plain = (
        [_features(folder / f"{row['key']}.features.npy") for row in of_arm] for of_arm in (rows, bases)
    )
    if any(each is None for each in (reference, *features, *plain)):
        return dict.fromkeys(("frechet", "frechet_sd", "frechet_over", "precision", "recall"))
    together = np.concatenate(features)
    precision, recall = precision_recall(together, reference)
    distance = frechet(together, reference)
    return {
        "frechet": round(distance, 3),
        "frechet_sd": round(float(np.std([frechet(each, reference) for each in features])), 3),
        "frechet_over": round(distance - frechet(np.concatenate(plain), reference), 3),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
    }


def _features(path: Path) -> np.ndarray | None:
    return np.load(path) if path.exists() else None


def document(rows: Sequence[dict]) -> str:
    lines = [
        "# Quality",
        "",
        "The pack, its rivals and fewer plain steps on the demo models, in the same engine of the same host: "
        "*image* and *video* (an SD3 and a Wan 2.1 architecture, cfg 2.5), *image_fewstep*, a student of the "
        "image model (cfg 1; 16, 12 and 8 steps), and *image_dit*, a class-conditional DiT that predicts "
        "noise (cfg 2.5). Made by `make quality`, whose rows are in `bench/out/quality.json`.",
        "",
        "- *PSNR*, *SSIM*, *distance*: to the uncached sample of the same noise, mean and (±) standard "
        "deviation over all samples and seeds. *distance* is perceptual, in the layers of a small classifier "
        "trained on the demo's data (demo/judge.py), so it is no LPIPS.",
        "- *Frechet*, *precision*, *recall*: of the samples against the data, in the features of the same "
        "classifier, so they are no FID; few samples make the distance large: in brackets is how much larger "
        "it is than that of the uncached samples of the same noise; what smooths makes it less, since smooth "
        "samples are nearer to the mean of the data ([paper.md](paper.md)). ± is over seeds. *accuracy*: "
        "share that the classifier takes for what was asked.",
        "- *budget*: share of the steps to be reused. Each rival's setting is the one whose plan has most "
        "nearly as many full steps (js/docs/RivalSchedule.md), or the *published* one. *evaluations*: with "
        "all blocks computed, of those the sampler asked for. *FLOPs*: as a share of uncached; more than the "
        "evaluations say where a method reuses only a part of the model. *speed-up*: of the CPU seconds of "
        "one thread, where an arm was sampled on a CPU, with fewer samples too; other work ran beside it, so "
        "it scatters by a third: go by the FLOPs, and by [speed.md](speed.md) for time. *fewer-steps* is the "
        "control.",
        "- Samples of the images' main methods are from a CPU, nearly all others from a GPU, each compared "
        "with the uncached one of the same device, in float32. An arm measured on both came to the same PSNR "
        "within 0.01 dB.",
        "- Bold: the best PSNR of those whose FLOPs exceed what the budget leaves by no more than 5 % of "
        "uncached.",
        "- *easycache* and *lazycache* are the host's own nodes. They need bf16, and are compared with "
        "*uncached-bf16*; a threshold was sought that meets the budget. *(idle)*: reused nothing, and is "
        "left out of comparisons.",
        "- *samples*: 66 of three seeds; fewer where a method has not been measured with all of them. The "
        "pack's own rows are measured with today's default, the others' are kept from 0.1.0: same prompts, "
        "same noise. Settings that have no row of the pack wait to be measured.",
        "",
    ]
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    for model in models:
        lines += [
            f"![Quality against work, {model} model](quality_{model}.png)", "",
            f"[All arms of the {model} model](quality_{model}.md)", "",
        ]  # fmt: skip
    compared = compare(rows)
    lines += ["## In short", "", *in_short(compared), "", "## At a glance", "", *at_a_glance(compared), ""]
    return "\n".join(lines)


def all_arms(model: str, rows: Sequence[dict]) -> str:
    """A document of the tables of one model."""
    lines = [f"# Quality: all arms of the {model} model", "", "The columns are explained in "
             "[quality.md](quality.md), which has what matters of them.", ""]  # fmt: skip
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        groups[row["sampler"], row["of_steps"]].append(row)
    for (sampler, steps), group in groups.items():
        uncached = [row for row in group if row["method"].startswith("uncached")]
        cached = [row for row in group if row not in uncached]
        best = {budget: best_of(cached, budget) for budget in {row["budget"] for row in cached}}
        ordered = [*uncached, *sorted(cached, key=lambda row: (row["budget"], -row["psnr"]))]
        cells = [_cells(row, row is best.get(row["budget"])) for row in ordered]
        lines += [f"## {sampler}, {steps} steps", "", *table(COLUMNS, cells), ""]
    return "\n".join(lines)


def best_of(rows: Sequence[dict], budget: float) -> dict | None:
    """The row of a budget with the best PSNR, of those that cost no more than it leaves, within 5 % of
    uncached. None of published settings, whose costs differ."""
    within = [row for row in rows if row["budget"] == budget > 0 and work_of(row) <= 1 - budget + 0.05]
    return max(within, key=lambda row: row["psnr"], default=None)


def work_of(row: dict) -> float:
    """Share of uncached. FLOPs are those of one sample, for which methods that decide while sampling may have
    computed fewer steps than for all."""
    return max(row["flops"], 1 - row["reuse"])


def compare(rows: Sequence[dict]) -> list[tuple[dict, dict]]:
    """For each setting and budget, the pack's default and the best other method."""
    compared = []
    for own in (row for row in rows if row["method"] == "omnicache"):
        setting = [row for row in rows if _setting(row) == _setting(own)]
        others = [row for row in setting if not row["method"].startswith(("omnicache", "uncached"))]
        other = best_of([row for row in others if not is_idle(row)], own["budget"])
        if other is not None:
            compared.append((own, other))
    return compared


def in_short(compared: Sequence[tuple[dict, dict]]) -> list[str]:
    """The pack's lead over the best other method, by model and budget."""
    leads: dict[tuple[str, float], list[float]] = defaultdict(list)
    for own, other in compared:
        leads[own["model"], own["budget"]].append(own["psnr"] - other["psnr"])
    lines = []
    for model, budget in sorted(leads, key=lambda name: (MODELS.index(name[0]), name[1])):
        found = leads[model, budget]
        lines.append((
            model, f"{budget:.0%}", f"{sum(lead >= 0 for lead in found)} of {len(found)}",
            f"{np.mean(found):+.1f}", f"{min(found):+.1f}", f"{max(found):+.1f}",
        ))  # fmt: skip
    return [
        "PSNR of the pack's default less that of the best other method at equal cost, whichever that is in a "
        "setting: a sampler with a number of steps.",
        "",
        *table(("model", "reused", "ahead in", "mean, dB", "least", "most"), lines),
    ]


def at_a_glance(compared: Sequence[tuple[dict, dict]]) -> list[str]:
    lines = []
    for own, other in compared:
        ahead = f"{own['psnr'] - other['psnr']:+.1f}"
        lines.append((
            own["model"], own["sampler"], str(own["of_steps"]), f"{own['budget']:.0%}", f"{own['psnr']:.1f}",
            f"{other['psnr']:.1f} ({other['method']})",
            ahead if own["psnr"] >= other["psnr"] else f"**{ahead}**", _frechet(own),
        ))  # fmt: skip
    head = ("model", "sampler", "steps", "reused", "omnicache", "best other", "difference", "Frechet")
    return [
        "The pack's default beside the best other method at equal cost, fewer plain steps included. PSNR in "
        "dB; in bold where the pack is behind.",
        "",
        *table(head, lines),
    ]


def _setting(row: dict) -> tuple:
    return row["model"], row["sampler"], row["of_steps"]


README_METHODS = ("omnicache", "omnicache-no-repay", "omnicache-paper", "fewer-steps")


def readme_table(rows: Sequence[dict]) -> list[str]:
    """The rows that the README shows: of each model at 50 euler steps (few-step: 16), the pack, the paper's
    way, the three best others and the control."""
    lines = []
    shown = [row for row in rows if row["sampler"] == "euler" and row["of_steps"] in (50, 16)]
    for model in MODELS:
        of_model = [row for row in shown if row["model"] == model]
        for row in of_model:
            if row["method"] == "uncached":
                lines.append(_few_cells(row, "uncached"))
        for budget in sorted({row["budget"] for row in of_model} & {0.5, 0.6, 5 / 16}):
            own = [row for row in of_model if row["budget"] == budget]
            always = [row for row in own if row["method"] in README_METHODS]
            others = [row for row in own if not row["method"].startswith("omnicache") and row not in always]
            for _ in range(3):
                best = best_of([row for row in others if row not in always and not is_idle(row)], budget)
                always += [best] if best is not None else []
            lines += [
                _few_cells(row, f"{row['method']}, {budget:.0%}")
                for row in sorted(always, key=lambda row: -row["psnr"])
            ]
    return table(("model", "method", "evaluations", "FLOPs", "PSNR dB", "SSIM", "Frechet, more"), lines)


def _few_cells(row: dict, name: str) -> list[str]:
    is_plain = row["method"] == "uncached"
    return [
        row["model"], f"**{name}**" if row["method"] == "omnicache" else name,
        f"{row['full']} / {row['asked']}",
        f"{row['flops']:.0%}", "-" if is_plain else f"{row['psnr']:.1f}",
        "-" if is_plain else f"{row['ssim']:.4f}",
        # The distance itself depends on the number of samples, which is not the same in all rows.
        "-" if is_plain or row["frechet"] is None else f"{row['frechet_over']:+.2f}",
    ]  # fmt: skip


def _frechet(row: dict) -> str:
    """Distance to the data, and by how much more than that of the uncached samples."""
    return "-" if row["frechet"] is None else f"{row['frechet']:.2f} ({row['frechet_over']:+.2f})"


def is_idle(row: dict) -> bool:
    """Whether a method did nothing at all, as the host's EasyCache does on some models."""
    return row["full"] == row["asked"] and row["method"] not in ("fewer-steps", "uncached", "uncached-bf16")


def _cells(row: dict, is_best: bool) -> list[str]:
    is_reference = row["method"].startswith("uncached")
    budget = f"{row['budget']:.0%}" if row["budget"] else "-" if is_reference else "published"
    speedup = f"{row['speedup']:.2f}x" if row["speedup"] else "-"
    name = row["method"] + (" (idle)" if is_idle(row) else "")
    quality = ["-", "-", "-"]
    if not is_reference:
        psnr = f"{row['psnr']:.2f}"
        quality = [
            f"{f'**{psnr}**' if is_best else psnr} ± {row['psnr_sd']:.1f}",
            f"{row['ssim']:.4f} ± {row['ssim_sd']:.4f}",
            f"{row['distance']:.2g}",
        ]
    data = ["-", "-", "-"]
    if row["frechet"] is not None:
        data = [
            f"{_frechet(row)} ± {row['frechet_sd']:.2f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
        ]
    return [
        name, budget, f"{row['full']} / {row['asked']}",
        f"{row['flops']:.0%}", speedup, *quality, *data, f"{row['accuracy']:.1%}",
        str(row["samples"]),
    ]  # fmt: skip


def save_plot(model: str, rows: Sequence[dict]) -> None:
    """PSNR, and Frechet distance above that of uncached, against FLOPs: a line for each method, of the
    setting with the most rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        groups[row["sampler"], row["of_steps"]].append(row)
    (sampler, steps), group = max(groups.items(), key=lambda item: len(item[1]))
    matplotlib.rcParams["svg.hashsalt"] = "omnicache"  # the same rows give the same file
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2))
    methods = sorted(
        {row["method"] for row in group if row["budget"] and not is_idle(row)},
        key=lambda name: (not name.startswith("omnicache"), name),
    )
    for number, method in enumerate(methods):
        points = [row for row in group if row["method"] == method and row["budget"] and not is_idle(row)]
        points.sort(key=work_of)
        work = [1 / work_of(row) for row in points]
        style = {
            "color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)],
            "lw": 2.4 if method.startswith("omnicache") else 1.0, "ms": 5,
            "ls": "-" if number < len(COLOURS) else "--",
        }  # fmt: skip
        axes[0].plot(work, [row["psnr"] for row in points], label=method, **style)
        if all(row["frechet"] is not None for row in points):
            axes[1].plot(work, [row["frechet_over"] for row in points], **style)
    axes[1].axhline(0.0, color="0.5", ls=":", lw=1)
    axes[1].annotate("uncached", (0.99, 0.0), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                     fontsize=8, color="0.4")  # fmt: skip
    axes[0].set(xlabel="work saved: FLOPs of uncached over these", ylabel="PSNR to uncached, dB")
    axes[1].set(
        xlabel="work saved: FLOPs of uncached over these",
        ylabel="Frechet distance to the data, above uncached",
    )
    axes[0].set_title(f"{model} model, {sampler}, {steps} steps", loc="left", fontsize=10)
    for axis in axes:
        axis.grid(alpha=0.25)
    figure.legend(loc="center right", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 0.86, 1))
    figure.savefig(DOCS / f"quality_{model}.png", dpi=110)
    figure.savefig(DOCS / f"quality_{model}.svg", metadata={"Date": None})
    pyplot.close(figure)


def write(rows: Sequence[dict], folder: Path) -> None:
    """rows: as bench/quality.py keeps them, beside the features of their samples in the folder."""
    if not rows:
        print("Nothing is measured yet.")
        return
    result = with_kept(aggregated(rows, folder))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "quality.json").write_text(json.dumps({"rows": result}, indent=1) + "\n")
    (DOCS / "quality.md").write_text(document(result), encoding="utf-8")
    put_between(README, "make quality", readme_table(result))
    for model in MODELS:
        of_model = [row for row in result if row["model"] == model]
        if of_model:
            (DOCS / f"quality_{model}.md").write_text(all_arms(model, of_model), encoding="utf-8")
        if any(row["budget"] for row in of_model):
            save_plot(model, of_model)
    print(f"bench/out/quality.json, docs/quality.md and docs/quality_*: {len(result)} arms")
