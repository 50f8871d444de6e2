"""Turns the rows of bench/studies.py into docs/studies.md and bench/out/studies.json."""

import itertools
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from studies_cases import (
    CONSTRAINED,
    FEW,
    MAIN,
    MODELS,
    MULTISTEP,
    NEAR_THE_MOST,
    PROMPTS,
    STUDIES,
    TOGETHER,
    Calibration,
    Case,
    cases,
    most_reused,
    transfer_cases,
    transfers,
)
from studies_conclusions import CONCLUSIONS
from tables import best_in_bold, number, table

ROOT = Path(__file__).resolve().parent.parent
Rows = Mapping[str, dict]
# The cases of each line of a table, by the line's name.
Lines = Mapping[str, Sequence[Case]]


def write(rows: Rows) -> None:
    known = [case for case in cases(MODELS, STUDIES) if case.key in rows]
    facts = [
        {"case": case.key, "mean": mean(rows, case), **{key: rows[case.key].get(key) for key in FACTS}}
        for case in known
    ]
    text = "\n".join(document(rows)) + "\n"
    (ROOT / "docs" / "studies.md").write_text(text, encoding="utf-8")
    lines = ",\n".join(json.dumps(each) for each in facts)
    (ROOT / "bench" / "out" / "studies.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(known)} cases in docs/studies.md and bench/out/studies.json")


FACTS = ("psnr", "plan", "seconds", "cache_bytes", "full", "asked", "limited_gammas", "impossible")


def document(rows: Rows) -> list[str]:
    counts = " and ".join(f"{len(PROMPTS[model])} {model}s" for model in MODELS)
    return [
        "# Studies",
        "",
        "Which settings to leave alone and which to change. Made by `make studies` "
        "(`.host/venv/bin/python bench/studies.py`), all but the sentences of conclusion; each case of it is "
        "in `bench/out/studies.json`.",
        "",
        f"PSNR in dB to the uncached result of the same noise, mean over {counts}, each of another "
        "prompt, cfg 2.5; no prompt here was calibrated with or used to choose a default. Where nothing "
        "else is said: the profile that comes with the pack, cost `reach`, max_consecutive 0 (as short "
        "as leaves a choice), protect_first 2, protect_last 1, granularity `stack`, correction "
        "`forecast` of order 2. Column heads name the model, the sampler, its steps and the share of "
        "them that is reused. Bold: the best of a column. *=*: the plan is that of the default. *-*: no "
        "plan meets the constraints, or not measured.",
        "",
        *sure(rows),
        said("summary"),
        "",
        *filters(rows),
        *granularity(rows),
        *guidance(rows),
        *constraints(rows),
        *room(rows),
        *transfer(rows),
    ]  # fmt: skip


def said(about: str) -> str:
    """A conclusion, as paragraphs of one line."""
    return re.sub(r"\n(?!- )", " ", CONCLUSIONS[about])


def mean(rows: Rows, case: Case) -> float | None:
    values = rows.get(case.key, {}).get("psnr")
    return round(statistics.mean(values), 3) if values else None


def sure(rows: Rows) -> list[str]:
    """How far a difference to the default may be chance."""
    lines = []
    for model in MODELS:
        errors = []
        for case in cases([model], STUDIES):
            default = Case(model, case.sampler, case.steps, case.reuse)
            pair = [rows.get(each.key, {}) for each in (case, default)]
            if case.scheduler != "simple" or case.shape or not all("psnr" in row for row in pair):
                continue
            if pair[0]["plan"] != pair[1]["plan"] or pair[0]["psnr"] != pair[1]["psnr"]:
                differences = [a - b for a, b in zip(pair[0]["psnr"], pair[1]["psnr"], strict=True)]
                errors.append(statistics.stdev(differences) / len(differences) ** 0.5)
        if errors:
            lines.append(f"{statistics.median(errors):.1f} dB ({model})")
    if not lines:
        return []
    return [
        f"A difference to the default has a standard error of {' and '.join(lines)} in the median of all "
        "cases: read nothing into less than twice that.",
        "",
    ]


def psnr_table(rows: Rows, head: Sequence[str], lines: Lines) -> list[str]:
    return [*table(head, best_in_bold(means(rows, lines))), ""]


def means(rows: Rows, lines: Lines) -> dict[str, list[float | None]]:
    return {name: [mean(rows, case) for case in of_line] for name, of_line in lines.items()}


def column(model: str, sampler: str, steps: int, reuse: float) -> str:
    return f"{model}, {sampler} {steps}, {reuse:.0%}"


SETTINGS = [*(("image", *setting) for setting in (*MAIN, MULTISTEP)), ("video", *MAIN[1])]


def filters(rows: Rows) -> list[str]:
    bases = [Case(*setting) for setting in SETTINGS]
    head = ["mode", "filter", *(column(*setting) for setting in SETTINGS)]
    changes = [
        ("off", {}),
        ("low-high, switch 0.5, cutoff 0.25", {"filter": "low-high"}),
    ]
    pair = {"filter": "low-high"}
    changes += [(f"low-high, switch {value}", {**pair, "switch_point": value}) for value in (0.3, 0.7)]
    changes += [(f"low-high, cutoff {value}", {**pair, "cutoff": value}) for value in (0.15, 0.35)]
    for name in ("low", "high"):
        changes += [
            (f"{name}, cutoff {value}", {"filter": name, "cutoff": value}) for value in (0.15, 0.25, 0.35)
        ]
    lines = {
        f"{mode} | {label}": [replace(base, mode=mode, **change) for base in bases]
        for mode in ("paper", "age-aware")
        for label, change in changes
    }
    lines |= {
        "per-band | (gains of 5 bands)": [replace(base, mode="per-band") for base in bases],
        "forecast | (has none)": bases,
        "off | (plain reuse)": [replace(base, mode="off") for base in bases],
    }
    video = Case("video", *MAIN[1])
    own = {where: Calibration(samples=2, over_time=where) for where in (False, True)}
    aware = [replace(video, mode="age-aware", over_time=where) for where in own]
    over_time = {
        f"age-aware, {name}": [replace(case, filter=name) for case in aware]
        for name in ("low-high", "low", "high")
    }
    per_band = [replace(video, mode="per-band", profile=own[where], over_time=where) for where in own]
    over_time["per-band, 2 calibration samples"] = per_band
    in_time = [
        [name, *(number(value, digits=2) for value in values)]
        for name, values in means(rows, over_time).items()
    ]
    return [
        "## Filters", "", said("filters"), "", *psnr_table(rows, head, lines),
        "### Videos: bands of each frame against bands over time, height and width", "",
        said("over time"), "",
        *table([column("video", *MAIN[1]), "each frame", "over time too"], in_time), "",
        "### Sound", "", said("sound"), "",
    ]  # fmt: skip


def granularity(rows: Rows) -> list[str]:
    head = ["", *(f"{name}: {unit}" for unit in ("dB", "CPU s", "cache MB") for name in ("stack", "branch"))]
    lines = []
    for setting in (*SETTINGS[:3], *(("video", *setting) for setting in MAIN)):
        pair = [Case(*setting, granularity=name) for name in ("stack", "branch")]
        found = [rows.get(case.key, {}) for case in pair]
        if not all("psnr" in row for row in found):
            continue
        lines.append([
            column(*setting), *(number(mean(rows, case)) for case in pair),
            *(number(row["seconds"]) for row in found), *(number(row["cache_bytes"] / 1e6) for row in found),
        ])  # fmt: skip
    return ["## Granularity", "", said("granularity"), "", *table(head, lines), ""]


def guidance(rows: Rows) -> list[str]:
    bases = [Case(*setting) for setting in SETTINGS]
    aware = [replace(base, mode="age-aware", profile=Calibration()) for base in bases]
    labels = {
        "": "age-aware, one gamma for both lanes (as shipped)",
        "after guidance": "age-aware, the same added after guidance",
        "each its own gamma": "age-aware, each lane its own gamma",
        "gamma of the guided noise": "age-aware, one gamma, fitted to the guided noise",
    }
    lines = {label: [replace(base, lanes=lanes) for base in aware] for lanes, label in labels.items()}
    lines |= {
        "forecast of each lane's residual (the default)": bases,
        "forecast of the guided output, model not run": [
            replace(base, lanes="guided output") for base in bases
        ],
    }
    head = ["correction", *(column(*setting) for setting in SETTINGS)]
    return [
        "## Correction of each lane or after guidance",
        "",
        said("guidance"),
        "",
        *psnr_table(rows, head, lines),
    ]


def constraints(rows: Rows) -> list[str]:
    text = ["## max_consecutive, protect_first, protect_last", "", said("constraints"), ""]
    changes = [
        *((f"max_consecutive {value}", {"max_consecutive": value}) for value in (0, 1, 2, 3, 4, 6)),
        *((f"protect_first {value}", {"protect_first": value}) for value in (2, 3, 4, 5, 6)),
        *((f"protect_last {value}", {"protect_last": value}) for value in (0, 1, 2, 3)),
        *(
            (f"protect_first {first}, max_consecutive {longest}",
             {"protect_first": first, "max_consecutive": longest})
            for first, longest in TOGETHER
        ),
    ]  # fmt: skip
    for (sampler, steps), order in itertools.product(CONSTRAINED, (2, 1)):
        cases = [
            base_of(Case(model, sampler, steps, reuse, order=order))
            for model, reuse in itertools.product(MODELS, (0.5, 0.6, 0.7))
        ]
        cases = [case for case in cases if replace(case, max_consecutive=4).key in rows]
        lines = {label: [replace(case, **change) for case in cases] for label, change in changes}
        lines = {label: line for label, line in lines.items() if any(case.key in rows for case in line)}
        head = [f"{sampler} {steps}, order {order}", *(f"{case.model}, {case.reuse:.0%}" for case in cases)]
        text += [*table(head, beside_default(rows, lines)), ""] if cases else []
    return text


def beside_default(rows: Rows, lines: Lines) -> list[list[str]]:
    """As best_in_bold has it, but "=" where the plan is that of the default."""
    found = []
    for name, *cells in best_in_bold(means(rows, lines)):
        pairs = zip(lines[name], cells, strict=True)
        found.append([name, *("=" if has_default_plan(rows, case) else cell for case, cell in pairs)])
    return found


def has_default_plan(rows: Rows, case: Case) -> bool:
    """Whether a case that is not the default was sampled with its plan."""
    row, default = rows.get(case.key, {}), base_of(case)
    return "psnr" in row and case != default and row["plan"] == rows.get(default.key, {}).get("plan")


def room(rows: Rows) -> list[str]:
    """Runs just long enough for the budget beside runs of one more."""
    settings = [(*setting, 1) for setting in FEW] + [(*setting, 2) for setting in NEAR_THE_MOST]
    settings += [
        (sampler, steps, reuse, longest)
        for sampler, steps in CONSTRAINED
        for reuse, longest in ((0.5, 2), (0.6, 2), (0.7, 3))
    ]
    lines = []
    for sampler, steps, reuse, longest in settings:
        case = Case("image", sampler, steps, reuse, max_consecutive=longest)
        left = most_reused(case) - round(reuse * steps)
        if left >= 0:
            both = [replace(case, model=model) for model in MODELS]
            gains = [gain(rows, each, replace(each, max_consecutive=longest + 1)) for each in both]
            lines.append((left, [str(left), f"{sampler} {steps}, {reuse:.0%}", str(longest), *gains]))
    head = ["steps to spare", "sampling", "max_consecutive", *(f"{model}: one more" for model in MODELS)]
    text = ["### Steps to spare", "", said("room"), ""]
    return [*text, *table(head, (line for _, line in sorted(lines))), ""]


def gain(rows: Rows, case: Case, other: Case) -> str:
    before, after = mean(rows, case), mean(rows, other)
    return "-" if None in (before, after) else f"{before:.1f} -> {after:.1f} ({after - before:+.1f})"


def base_of(case: Case) -> Case:
    """The default that the constraints of a case differ from."""
    default = Case(case.model)
    names = ("max_consecutive", "protect_first", "protect_last")
    return replace(case, **{name: getattr(default, name) for name in names})


def transfer(rows: Rows) -> list[str]:
    text = ["## Profiles used elsewhere than calibrated", "", said("transfer"), ""]
    columns = [("image", 0.5, "forecast"), ("image", 0.6, "forecast"), ("video", 0.6, "forecast"),
               ("image", 0.6, "age-aware"), ("video", 0.6, "age-aware")]  # fmt: skip
    for target in transfers("image"):
        used = [each for each in columns if target in transfers(each[0])]
        found = [transfer_cases(model, target, reuse, mode) for model, reuse, mode in used]
        lines = {name: [of_column[name] for of_column in found] for name in found[0]}
        head = [f"sampling with {target}; profile of"]
        head += [f"{model}, {reuse:.0%}, {mode}" for model, reuse, mode in used]
        text += psnr_table(rows, head, lines)
    return text
