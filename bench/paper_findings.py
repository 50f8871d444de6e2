"""What the rows of bench/paper.py say of each of the paper's claims."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from measures import frechet
from paper_measures import Correlation, agreement, correlation, estimate, procrustes_of_pairs
from paper_tasks import GROUPS, MODELS, Arm, ablation, budgets, part_arm, parts
from quality_tasks import FOLDER as QUALITY

# What counts as confirmed; each appears in the document beside its claim.
HELD = 0.95
AXIS_REACH = 3.0
SAME_CURVE = 0.9
SAME_SHAPE = 0.05
RELATED = 0.3
HIGH_COSINE = 0.9
PRODUCT_WITHIN = 0.2
NEAR_RATIO = 0.95
LOST_ACCURACY, LOST_CONFIDENCE, CHANGED_DETAIL = 0.01, 0.01, 0.01


@dataclass(frozen=True)
class Finding:
    """What one model says of one claim."""

    holds: bool
    numbers: str


class Results:
    """The rows by what they are, and their summaries."""

    def __init__(self, rows: dict[str, dict], folder: Path) -> None:
        self._rows, self._folder = rows, folder
        self.models = [model for model in MODELS if f"{model} noise" in rows and self.is_there(model)]
        self._summaries: dict[str, dict] = {}

    def is_there(self, model: str) -> bool:
        """Whether a model is measured to the end of its first part, without the random plans."""
        return all(arm.key in self._rows for arm in (*ablation(model), *parts(model)))

    def noise(self, model: str) -> dict[str, np.ndarray]:
        row = self._rows[f"{model} noise"]
        return {
            key: np.array(value, dtype=np.float64) for key, value in row.items() if isinstance(value, list)
        }

    def trajectories(self, model: str, group: str = GROUPS[0]) -> dict | None:
        return self._rows.get(f"{model} trajectories, {group}")

    def row(self, model: str, plan: str, reused: int, mode: str = "off", samples: int = 0) -> dict | None:
        return self._rows.get(Arm(model, plan, reused, mode, samples or MODELS[model].samples).key)

    def plain(self, model: str, samples: int = 0) -> dict:
        return self.row(model, "uncached", 0, samples=samples)

    def part(self, model: str, part: str) -> dict | None:
        return self._rows.get(part_arm(model, part).key)

    def speed(self, model: str) -> dict[str, list[float]] | None:
        return self._rows.get(f"{model} speed")

    def detail_of_data(self, model: str) -> float | None:
        """Energy of fine detail of the data over that of uncached samples."""
        data = self._rows.get(f"{model} data")
        return data["fine"] / float(np.mean(self.plain(model)["fine"])) if data else None

    def single(self, model: str, is_late: bool) -> tuple[int, dict]:
        """The run with one reused step, at a quarter or three quarters of the steps, and its number."""
        steps = MODELS[model].steps
        step = 3 * steps // 4 if is_late else steps // 4
        return step, self.row(model, f"single-{step}", 1)

    def growth(self, model: str, is_late: bool) -> float:
        """Size of one reused step's error at the end over that right behind the step."""
        step, row = self.single(model, is_late)
        return row["away"][-1] / row["away"][step + 1]

    def summary(self, row: dict) -> dict:
        """Means of one arm, and its differences to the uncached samples of the same noise."""
        key = row["key"]
        if key in self._summaries:
            return self._summaries[key]
        plain = self.plain(row["model"], row["samples"])
        data = np.load(QUALITY / f"data_{MODELS[row['model']].kind}.npy")

        def change(name: str) -> dict:
            return asdict(estimate(np.subtract(row[name], plain[name])))

        self._summaries[key] = {
            "key": key,
            "psnr": asdict(estimate(np.minimum(row["psnr"], 100.0))),
            "ssim": float(np.mean(row["ssim"])),
            "distance": float(np.mean(row["distance"])),
            "frechet": frechet(np.load(self._folder / f"{key}.features.npy"), data),
            "accuracy": float(np.mean(row["hits"])),
            "confidence": change("confidence"),
            "nearest": change("nearest"),
            "nearest_share": float(np.mean(row["nearest"]) / np.mean(plain["nearest"]) - 1),
            "error": row["share"][-1] if "share" in row else None,
            "fine": float(np.mean(row["fine"]) / np.mean(plain["fine"]) - 1),
        }
        return self._summaries[key]

    def psnr(self, model: str, plan: str, reused: int, mode: str = "off", samples: int = 0) -> float:
        return float(np.mean(self.row(model, plan, reused, mode, samples)["psnr"]))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def minus(number: float, digits: int) -> str:
    """With a minus sign in the place of a hyphen."""
    return f"{number:.{digits}f}".replace("-", "−")


def signed(number: float, digits: int = 1) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")


def both(found: Correlation) -> str:
    return f"{signed(found.pearson, 2)} / {signed(found.spearman, 2)}"


# The findings, in the order of paper_claims.CLAIMS.


def all_three(results: Results, model: str) -> Finding:
    shares = results.trajectories(model)["three"]
    return Finding(np.mean(shares) > HELD, f"{percent(np.mean(shares), 2)} (least {percent(min(shares), 2)})")


def off_axis(results: Results, model: str) -> Finding:
    shares = results.trajectories(model)["plane"]
    spread = percent(float(np.std(shares)))
    return Finding(
        np.mean(shares) > HELD, f"{percent(np.mean(shares))} ± {spread} (least {percent(min(shares))})"
    )


def reach(results: Results, model: str) -> Finding:
    u, w1, w2 = np.mean(results.trajectories(model)["extents"], axis=0)
    axis = np.mean(results.trajectories(model)["axis"])
    return Finding(
        u >= AXIS_REACH * w1, f"{u:.0f} : {w1:.1f} : {w2:.1f}; the axis alone holds {percent(axis)} of all"
    )


def shape(results: Results, model: str) -> Finding:
    different, same = (
        procrustes_of_pairs(np.array(results.trajectories(model, group)["coordinates"])[:, :, 1:])
        for group in GROUPS[:2]
    )
    return Finding(
        different.mean() <= SAME_SHAPE,
        f"{different.mean():.3f} (most {different.max():.3f}); of one prompt {same.mean():.3f}",
    )


def same_curve(results: Results, model: str) -> Finding:
    different, same = (
        agreement(np.array(results.trajectories(model, group)["turning"])) for group in GROUPS[:2]
    )
    return Finding(
        different.mean() >= SAME_CURVE,
        f"{different.mean():.2f} (least {minus(different.min(), 2)}); of one prompt {same.mean():.2f}",
    )


def spacing(results: Results, model: str) -> Finding:
    row = results.trajectories(model)
    lengths, sizes = np.array(row["spacing"]), row["output_size"]
    rank = correlation(np.arange(len(lengths)), lengths).spearman
    sigmas = -np.diff(row["sigmas"])
    return Finding(
        rank <= -SAME_CURVE,
        f"{lengths[0]:.2f} to {lengths[-1]:.2f}, rank correlation {signed(rank, 2)}; last step in sigma over "
        f"the first {sigmas[-1] / sigmas[0]:.1f}, size of the output {sizes[-1] / sizes[0]:.2f}",
    )


def similarity(name: str) -> Callable[[Results, str], Finding]:
    def finding(results: Results, model: str) -> Finding:
        curve, steps = results.trajectories(model)[name], MODELS[model].steps
        early, late = (curve[quarter * steps // 4 - 1] for quarter in (1, 3))
        return Finding(late < early, f"{percent(early)} early, {percent(late)} late")

    return finding


def early_growth(results: Results, model: str) -> Finding:
    growth = results.growth(model, is_late=False)
    return Finding(growth < 1, f"times {growth:.2f}")


def late_growth(results: Results, model: str) -> Finding:
    growth = results.growth(model, is_late=True)
    return Finding(growth >= 1, f"times {growth:.2f}")


def _early_late(results: Results, model: str) -> tuple[dict, dict] | None:
    if model == "few-step":
        return results.single(model, is_late=False)[1], results.single(model, is_late=True)[1]
    return results.part(model, "early-2"), results.part(model, "late-2")


def late_fidelity(results: Results, model: str) -> Finding:
    early, late = (results.summary(row)["psnr"]["mean"] for row in _early_late(results, model))
    return Finding(late < early, f"early {early:.1f}, late {late:.1f} dB")


def late_quality(results: Results, model: str) -> Finding:
    early, late = _early_late(results, model)
    difference = estimate(np.subtract(late["nearest"], early["nearest"]))
    shares = [results.summary(row)["nearest_share"] for row in (early, late)]
    return Finding(
        difference.mean > difference.half,
        f"early {signed(100 * shares[0], 2)} %, late {signed(100 * shares[1], 2)} %",
    )


def late_ripples(results: Results, model: str) -> Finding:
    early, late = (results.summary(row)["fine"] for row in _early_late(results, model))
    return Finding(
        late > max(early, 0.0), f"early {signed(100 * early, 2)} %, late {signed(100 * late, 2)} %"
    )


def spread_wins(results: Results, model: str) -> Finding | None:
    if model == "few-step":
        return None
    found = [results.summary(results.part(model, part)) for part in ("spread-2", "early-2", "late-2")]
    even, early, late = (each["psnr"]["mean"] for each in found)
    errors = ", ".join(percent(each["error"], 2) for each in found)
    return Finding(
        even > max(early, late),
        f"spread {even:.1f}, early {early:.1f}, late {late:.1f} dB; error of the last state {errors}",
    )


def drawn(results: Results, model: str) -> list[float]:
    setting = MODELS[model]
    rows = (
        results.row(model, f"random-{number}", budgets(model)[0], samples=setting.few_samples)
        for number in range(setting.draws)
    )
    return [float(np.mean(row["psnr"])) for row in rows if row]


def curvature_chooses(results: Results, model: str) -> Finding | None:
    random = drawn(results, model)
    if not random:
        return None
    mine, most, even = (
        results.psnr(model, plan, budgets(model)[0], samples=MODELS[model].few_samples)
        for plan in ("curvature", "curviest", "even")
    )
    menger = results.row(model, "menger", budgets(model)[0], samples=MODELS[model].few_samples)
    per_length = f" (by Menger curvature {np.mean(menger['psnr']):.1f})" if menger else ""
    beaten = sum(mine > other for other in random)
    return Finding(
        mine > even and mine > most and beaten > len(random) / 2,
        f"least turning angle {mine:.1f}{per_length}, most {most:.1f}, even {even:.1f} dB; better than "
        f"{beaten} of {len(random)} random plans",
    )


def related(a: str, b: str) -> Callable[[dict], Correlation]:
    """At the steps where both are measured; neither curvature exists at the first step."""

    def measure(noise: dict) -> Correlation:
        return correlation(np.abs(noise[a])[1:], np.abs(noise[b])[1:])

    return measure


def gamma_falls(curvature: str) -> Callable[[Results, str], Finding]:
    def finding(results: Results, model: str) -> Finding:
        noise = results.noise(model)
        gamma, cosines = (related(curvature, name)(noise) for name in ("gamma", "cosine"))
        return Finding(
            max(gamma.pearson, gamma.spearman) <= -RELATED, f"{both(gamma)}; with the cosine {both(cosines)}"
        )

    return finding


def noise_rises(curvature: str) -> Callable[[Results, str], Finding]:
    def finding(results: Results, model: str) -> Finding:
        found = related(curvature, "relative_noise")(results.noise(model))
        return Finding(min(found.pearson, found.spearman) >= RELATED, both(found))

    return finding


def cosine(results: Results, model: str) -> Finding:
    cosines = results.noise(model)["cosine"]
    cosines = cosines[np.isfinite(cosines)]
    high = float((cosines >= HIGH_COSINE).mean())
    return Finding(
        np.median(cosines) >= HIGH_COSINE,
        f"median {np.median(cosines):.3f}; {HIGH_COSINE} or more at {percent(high, 0)} of the steps",
    )


def product_rule(results: Results, model: str) -> Finding:
    """Full, reuse, reuse: the noise at the full step is that of a cache three steps old."""
    noise = results.noise(model)
    gamma, measured = noise["gamma"], noise["gamma_2_3"]
    product = gamma * np.concatenate(([np.nan], gamma[:-1]))
    both_known = np.isfinite(product) & np.isfinite(measured)
    product, measured, first = (
        float(np.median(curve[both_known])) for curve in (product, measured, noise["gamma_1_3"])
    )
    return Finding(
        abs(product / measured - 1) <= PRODUCT_WITHIN,
        f"first {first:.2f} measured, {np.nanmedian(gamma):.2f} by Eq. 7; second {measured:.2f} measured, "
        f"{product:.2f} by Eq. 9",
    )


def gains(after: str, before: str, name: str = "psnr") -> Callable[[Results, str], list[tuple[str, float]]]:
    def measure(results: Results, model: str) -> list[tuple[str, float]]:
        found = []
        for reused in budgets(model):
            for plan in ("curvature", "even"):
                a, b = (np.mean(results.row(model, plan, reused, mode)[name]) for mode in (after, before))
                found.append((f"{percent(reused / MODELS[model].steps, 0)} {plan}", float(a - b)))
        return found

    return measure


def always_gains(after: str, before: str) -> Callable[[Results, str], Finding]:
    def finding(results: Results, model: str) -> Finding:
        found = gains(after, before)(results, model)
        numbers = ", ".join(f"{label} {signed(gain)}" for label, gain in found)
        return Finding(min(gain for _, gain in found) > 0, f"{numbers} dB")

    return finding


def filter_quality(results: Results, model: str) -> Finding:
    """Nearer to the data than without the filter, on the paper's plan at each of its budgets."""
    holds, numbers = [], []
    for reused in budgets(model):
        after, before = (results.row(model, "curvature", reused, mode) for mode in ("paper+filter", "paper"))
        difference = estimate(np.subtract(after["nearest"], before["nearest"]))
        holds.append(difference.mean < -difference.half)
        scale = 100 / np.mean(before["nearest"])
        fine = [signed(100 * results.summary(row)["fine"]) for row in (before, after)]
        numbers.append(
            f"{percent(reused / MODELS[model].steps, 0)} {signed(scale * difference.mean, 2)} ± "
            f"{scale * difference.half:.2f} % (fine detail {fine[0]} to {fine[1]} %)"
        )
    return Finding(all(holds), ", ".join(numbers))


def no_loss(index: int) -> Callable[[Results, str], Finding | None]:
    def finding(results: Results, model: str) -> Finding | None:
        if index >= len(budgets(model)):
            return None
        row = results.row(model, "curvature", budgets(model)[index], "paper+filter")
        mine, plain = results.summary(row), results.summary(results.plain(model))
        return Finding(
            mine["accuracy"] >= plain["accuracy"] - LOST_ACCURACY
            and mine["confidence"]["mean"] >= -LOST_CONFIDENCE
            and abs(mine["fine"]) <= CHANGED_DETAIL,
            f"accuracy {percent(mine['accuracy'], 0)} of {percent(plain['accuracy'], 0)}, confidence "
            f"{signed(100 * mine['confidence']['mean'], 2)} points, fine detail "
            f"{signed(100 * mine['fine'], 2)} %, Frechet {mine['frechet']:.1f} of "
            f"{plain['frechet']:.1f}; {mine['psnr']['mean']:.1f} dB",
        )

    return finding


def speed(results: Results, model: str) -> Finding | None:
    measured, steps = results.speed(model), MODELS[model].steps
    if measured is None:
        return None
    wanted = [steps / (steps - reused) for reused in budgets(model)]
    found = list(zip(measured["time"], measured["operations"], wanted, strict=True))
    return Finding(
        all(time >= NEAR_RATIO * ratio for time, _, ratio in found),
        "; ".join(f"{time:.2f}x by time, {work:.2f}x by FLOPs" for time, work, _ in found),
    )


def beats_fewer(results: Results, model: str) -> Finding:
    found = [
        (results.psnr(model, "curvature", reused, "paper+filter"), results.psnr(model, "fewer", reused))
        for reused in budgets(model)
    ]
    return Finding(
        all(mine > fewer for mine, fewer in found),
        ", ".join(f"{mine:.1f} against {fewer:.1f} dB" for mine, fewer in found),
    )
