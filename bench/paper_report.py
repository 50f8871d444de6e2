"""Turns the rows of bench/paper.py into docs/paper.md and bench/out/paper.json."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import paper_figures
import paper_flops
from paper_claims import CLAIMS, verdict
from paper_findings import Results, minus, percent, signed
from paper_measures import agreement, correlation, procrustes_of_pairs
from paper_tasks import FAST, FEW_STEP_REUSED, GROUPS, MODELS, SLOW, TRAJECTORIES, budgets
from tables import table

ROOT = Path(__file__).resolve().parent.parent
OUT, DOCS = ROOT / "bench" / "out", ROOT / "docs"

LABELS = {
    "off": "reuse", "paper": "+ correction", "paper+filter": "+ filter", "age-aware": "age-aware",
    "default": "the pack's default",
}  # fmt: skip
MEASURES = (
    "error", "PSNR dB", "SSIM", "distance", "Frechet", "to the data", "fine detail", "confidence", "accuracy",
)  # fmt: skip


def cells(summary: dict, is_reference: bool = False) -> list[str]:
    psnr = "-" if is_reference else f"{summary['psnr']['mean']:.1f} ± {summary['psnr']['half']:.1f}"
    error = "-" if is_reference or summary["error"] is None else percent(summary["error"], 2)
    return [
        error, psnr, "-" if is_reference else f"{summary['ssim']:.4f}",
        "-" if is_reference else f"{summary['distance']:.2g}", f"{summary['frechet']:.2f}",
        "-" if is_reference else f"{signed(100 * summary['nearest_share'], 2)} %",
        "-" if is_reference else f"{signed(100 * summary['fine'], 2)} %",
        "-" if is_reference else f"{signed(100 * summary['confidence']['mean'], 2)}",
        percent(summary["accuracy"], 1),
    ]  # fmt: skip


def evaluated(results: Results) -> list[dict]:
    """What each model says of each claim."""
    data = []
    for claim in CLAIMS:
        found = {model: claim.finding(results, model) for model in results.models}
        found = {model: finding for model, finding in found.items() if finding}
        holds = {model: bool(finding.holds) for model, finding in found.items()}
        said = verdict(holds)
        data.append(
            {
                "section": claim.section, "claim": claim.text, "where": claim.where, "test": claim.test,
                "verdict": said, "reading": claim.reading[1] if claim.reading[0] == said else "",
                "holds": holds, "numbers": {model: finding.numbers for model, finding in found.items()},
            }
        )  # fmt: skip
    return data


def verdicts_table(claims: Sequence[dict]) -> list[str]:
    rows = [(claim["claim"], claim["where"], f"**{claim['verdict']}**", claim["reading"]) for claim in claims]
    return table(("claim", "in the paper", "verdict", ""), rows)


def numbers_table(claims: Sequence[dict], section: str, models: Sequence[str]) -> list[str]:
    """The numbers behind the verdicts of one section."""
    rows = []
    for claim in claims:
        if claim["section"] != section:
            continue
        row = [f"**{claim['claim']}**: {claim['test']}"]
        for model in models:
            mark = {True: "✓ ", False: "✗ ", None: ""}[claim["holds"].get(model)]
            row.append(mark + claim["numbers"].get(model, "-"))
        rows.append(row)
    return table(("claim, and its test", *models), rows)


def shape_table(results: Results) -> list[str]:
    """Shares, reaches and likeness of shapes."""
    names = {
        "variance held by u alone": lambda row: percent(np.mean(row["axis"]), 2),
        "by u, w1 and w2": lambda row: (
            f"{percent(np.mean(row['three']), 2)} ± {percent(np.std(row['three']), 2)}"
        ),
        "of what is off the axis, by w1 and w2": lambda row: (
            f"{percent(np.mean(row['plane']))} ± {percent(np.std(row['plane']))}"
        ),
    }
    lines = [
        [name, *(text(results.trajectories(model)) for model in results.models)]
        for name, text in names.items()
    ]
    for group in GROUPS[:2]:
        label = {"prompts": "different prompts", "same prompt": "one prompt, different noise"}[group]
        rows = [results.trajectories(model, group) for model in results.models]
        turning = [agreement(np.array(row["turning"])) for row in rows]
        spread = [np.mean(np.std(row["turning"], axis=0) / np.mean(row["turning"], axis=0)) for row in rows]
        shapes = [procrustes_of_pairs(np.array(row["coordinates"])) for row in rows]
        planes = [procrustes_of_pairs(np.array(row["coordinates"])[:, :, 1:]) for row in rows]
        lines += [
            [f"{label}: correlation of turning angles, pairs (least)",
             *(f"{pairs.mean():.2f} ({minus(pairs.min(), 2)})" for pairs in turning)],
            [f"{label}: spread of the turning angle at a step, of its mean",
             *(percent(share, 0) for share in spread)],
            [f"{label}: Procrustes distance in 3-D, pairs", *(f"{pairs.mean():.4f}" for pairs in shapes)],
            [f"{label}: Procrustes distance off the axis (w1, w2), pairs",
             *(f"{pairs.mean():.3f}" for pairs in planes)],
        ]  # fmt: skip
    guided = ["mean turning angle with cfg 1 against with cfg 2.5: correlation"]
    for model in results.models:
        row = results.trajectories(model, "no guidance")
        if row is None:
            guided.append("-")
            continue
        curves = [np.mean(each["turning"], axis=0) for each in (row, results.trajectories(model))]
        guided.append(f"{correlation(*curves).pearson:.3f}")
    return table(("", *results.models), [*lines, guided])


def parts_table(results: Results, model: str) -> list[str]:
    steps = MODELS[model].steps
    names = {
        "early-2": "every second, first half", "late-2": "every second, second half",
        "spread-2": "as many, spread over all", "early-3": "two of three, first half",
        "late-3": "two of three, second half",
    }  # fmt: skip
    arms = []
    if model != "few-step":
        rows = [(name, results.part(model, part)) for part, name in names.items()]
        arms = [(f"{name} ({row['reused']} of {steps})", row) for name, row in rows if row]
    for is_late in (False, True):
        step, row = results.single(model, is_late)
        arms.append((f"only step {step} of 0 to {steps - 1}", row))
    return table(
        ("reused steps", *MEASURES),
        [
            ["none", *cells(results.summary(results.plain(model)), True)],
            *([name, *cells(results.summary(row))] for name, row in arms),
        ],
    )


def ablation_table(results: Results, model: str) -> list[str]:
    rows = [["uncached", *cells(results.summary(results.plain(model)), True)]]
    steps = MODELS[model].steps
    for reused in budgets(model):
        arms = [
            (f"{plan}: {LABELS[mode]}", (plan, reused, mode))
            for plan in ("curvature", "even")
            for mode in ("off", "paper", "paper+filter")
        ]
        arms += [
            ("curvature: age-aware", ("curvature", reused, "age-aware")),
            (LABELS["default"], ("reach", reused, "default")),
            (f"{steps - reused} plain steps", ("fewer", reused, "off")),
        ]
        for label, arm in arms:
            summary = results.summary(results.row(model, *arm))
            rows.append([f"{percent(reused / steps, 0)}, {label}", *cells(summary)])
    return table(("arm", *MEASURES), rows)


def slow_and_fast(results: Results) -> list[str]:
    head = (
        "model, setting", "paper mode dB", "plain reuse dB", "fewer steps dB", "the pack's default dB",
        "confidence: paper", "plain", "fewer", "default",
    )  # fmt: skip
    rows = []
    for model in results.models:
        for reused, name in zip(budgets(model), ("slow", "fast"), strict=False):
            arms = (
                ("curvature", "paper+filter"), ("curvature", "off"), ("fewer", "off"),
                ("reach", "default"),
            )  # fmt: skip
            found = [results.summary(results.row(model, plan, reused, mode)) for plan, mode in arms]
            steps = MODELS[model].steps
            label = f"{reused} of {steps}" if model == "few-step" else name
            ratio = f"{steps / (steps - reused):.2f}x"
            values = [f"{each['psnr']['mean']:.1f}" for each in found]
            values += [signed(100 * each["confidence"]["mean"], 2) for each in found]
            rows.append([f"{model}, {label} ({ratio})", *values])
    return table(head, rows)


def document(results: Results) -> tuple[str, list[dict]]:
    """docs/paper.md, and its claims as data."""
    data = evaluated(results)
    counts = {
        said: sum(claim["verdict"] == said for claim in data)
        for said in ("confirmed", "depends", "not confirmed")
    }
    samples = ", ".join(f"{MODELS[model].samples} ({model})" for model in results.models)
    lines = [
        "# The paper, re-measured",
        "",
        "What OmniCache (arXiv 2508.16212, ICCV 2025) claims, measured anew on this pack's demo models in "
        "the real host. Made by `make paper`; the numbers are in `bench/out/paper.json`.",
        "",
        f"- Models: *image* (SD3 architecture) and *video* (Wan 2.1 architecture), 50 euler steps, cfg 2.5; "
        "*few-step*, the image model distilled to 16 steps without guidance, for what the paper shows on a "
        f"distilled 16-step model ({FEW_STEP_REUSED} steps reused). Slow and fast are the paper's: "
        f"{SLOW:.0%} and {FAST:.0%} of the steps reused.",
        f"- Samples: {samples}; prompts and noise that no calibration saw. Curvature and gamma are those of "
        f"the "
        "shipped profiles (8 samples each). In each plan at most two reused steps follow each other, and the "
        "first two and the last are full.",
        "- **What carries over.** These are two small models trained on emoji, not Latte or Open-Sora. They "
        "are far smoother from step to step, so all PSNRs are higher than on large models, and differences "
        "in dB do not carry over. Signs, orders, and what depends on the form of the equations are worth "
        "more; where the models disagree, a claim is not general.",
        "- ± in tables is half the width of the 95 % interval over samples, in the text on shapes the "
        "standard deviation.",
        "",
        "## Verdicts",
        "",
        f"{counts['confirmed']} confirmed, {counts['depends']} depend on the model, "
        f"{counts['not confirmed']} not "
        "confirmed. *Confirmed*: the test under the claim is passed on all models; *not confirmed*: on none. "
        "The tests are ours, since the paper gives hardly any thresholds.",
        "",
        *verdicts_table(data),
        "",
        "## The trajectory",
        "",
        "![Trajectories and turning angles](paper_trajectories.png)",
        "",
        *numbers_table(data, "trajectory", results.models),
        "",
        "Left: what lies off the axis from noise to sample, against the way along it. Signs are fixed so "
        "that each direction reaches farthest in the positive. Right: the turning angle at each state, mean "
        "and standard "
        f"deviation. {', '.join(f'{TRAJECTORIES[model]} ({model})' for model in results.models)} samples.",
        "",
        *shape_table(results),
        "",
        "A Procrustes distance is the share of one shape that is left after the other was moved, turned, "
        "mirrored and scaled onto it. In 3-D it is small for any two nearly straight lines; off the axis it "
        "says more.",
        "",
        "## Curvature, gamma and the noise of reuse",
        "",
        "![Curvature, gamma and noise at each step](paper_curvature.png)",
        "",
        *numbers_table(data, "curvature", results.models),
        "",
        "Gamma is the least-squares factor from the noise at one step to that at the next, both of a cache "
        "one step old, and the cosine the same without the change in size. Neighbouring steps are not "
        "independent, so these correlations have far fewer degrees of freedom than there are steps.",
        "",
        "## Early against late reuse",
        "",
        "![Change of outputs, one reused step, and early against late reuse](paper_early_late.png)",
        "",
        *numbers_table(data, "early and late", results.models),
        "",
        "Left: relative change of the model's output from step to step (the paper's Fig. 3c), as it comes "
        "(flow velocity) and as the noise that it implies. Middle: distance to the uncached run when a "
        "single step is reused (its Fig. 3a, 3b), as a multiple of what it is right behind the step. Right: "
        "relative distance to the uncached run with as many steps reused in one half or spread. All without "
        "a correction.",
        "",
    ]
    details = ", ".join(
        f"{detail:.2f} times ({model})"
        for model in results.models
        if (detail := results.detail_of_data(model))
    )
    for model in results.models:
        lines += [f"### {model}", "", *parts_table(results, model), ""]
    lines += [
        "*error*: distance of the last state to the uncached one, of its size. *distance*: perceptual, to "
        "uncached, in the layers of a classifier of the demo's data (no LPIPS). *Frechet*: to the data, in "
        "its features (no FID; few samples make it large for all rows). *to the data*: change of the mean "
        "distance of a sample to its nearest in the data, in the same features. *fine detail*: change of the "
        "energy above half the highest frequency. *confidence*: change of the classifier's probability of "
        "what was asked, in points. All changes are to uncached."
        + (f" The data have more fine detail than uncached samples: {details}." if details else ""),
        "",
        "## Error along the run",
        "",
        "![Relative error at each step](paper_error.png)",
        "",
        f"Distance of the state to that of the uncached run over its size, {SLOW:.0%} reused (few-step: "
        f"{FEW_STEP_REUSED} of 16). The first three on the paper's plan of least curvature.",
        "",
        "## Table 4: reuse, correction, filter",
        "",
        "![PSNR of each arm](paper_ablation.png)",
        "",
        *numbers_table(data, "ablation", results.models),
        "",
    ]
    for model in results.models:
        lines += [f"### {model}", "", *ablation_table(results, model), ""]
    lines += [
        "*curvature* and *even* are plans; *age-aware* corrects with a gamma measured for the ages of the "
        "caches in use, in the place of the product of Eq. 9; the pack's default has its own plan (forecast "
        "error) and a forecast of order 2.",
        "",
        "## Which steps",
        "",
        "![Plain reuse by different plans](paper_plans.png)",
        "",
        *numbers_table(data, "plans", results.models),
        "",
        f"Plain reuse of {SLOW:.0%} of the steps on plans that obey the same constraints; "
        + ", ".join(
            f"{model}: {MODELS[model].draws} random plans of {MODELS[model].few_samples} samples each"
            for model in results.models
            if MODELS[model].draws
        )
        + ".",
        "",
        "## Slow and fast",
        "",
        *numbers_table(data, "slow and fast", results.models),
        "",
        *slow_and_fast(results),
        "",
        "Paper mode is the plan of least curvature with correction and filter.",
        "",
        *paper_flops.section(paper_flops.read()),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n", data


def write(rows: dict[str, dict], folder: Path) -> None:
    """rows: as bench/paper.py keeps them, beside the features of their samples in the folder."""
    results = Results(rows, folder)
    if not results.models:
        print("No model is measured completely yet.")
        return
    text, claims = document(results)
    arms = [
        results.summary(row) for row in rows.values() if row.get("plan") and row["model"] in results.models
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "paper.json").write_text(json.dumps({"claims": claims, "arms": rounded(arms)}, indent=1) + "\n")
    (DOCS / "paper.md").write_text(text, encoding="utf-8")
    paper_figures.save_all(results, DOCS)
    print(f"docs/paper.md, docs/paper_*, bench/out/paper.json: {len(claims)} claims, {len(arms)} arms")


def rounded(value: object) -> object:
    """Five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value
