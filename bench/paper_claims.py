"""The paper's claims, what counts as confirmed, and what the verdicts mean."""

from collections.abc import Callable
from dataclasses import dataclass

from paper_findings import (
    AXIS_REACH,
    CHANGED_DETAIL,
    HELD,
    HIGH_COSINE,
    LOST_ACCURACY,
    NEAR_RATIO,
    PRODUCT_WITHIN,
    RELATED,
    SAME_CURVE,
    SAME_SHAPE,
    Finding,
    Results,
    all_three,
    always_gains,
    beats_fewer,
    cosine,
    curvature_chooses,
    early_growth,
    filter_quality,
    gamma_falls,
    late_fidelity,
    late_growth,
    late_quality,
    late_ripples,
    no_loss,
    noise_rises,
    off_axis,
    percent,
    product_rule,
    reach,
    same_curve,
    shape,
    signed,
    similarity,
    spacing,
    speed,
    spread_wins,
)


@dataclass(frozen=True)
class Claim:
    """section: of docs/paper.md. text: of the paper. where: in the paper. test: what counts as confirmed.
    reading: a verdict, and a sentence that explains it; left out should the verdict become another."""

    section: str
    text: str
    where: str
    test: str
    finding: Callable[[Results, str], Finding | None]
    reading: tuple[str, str]


def verdict(holds: dict[str, bool]) -> str:
    """holds: whether the claim holds on each model that says something of it."""
    if not holds:
        return "not measured"
    if all(holds.values()):
        return "confirmed"
    if not any(holds.values()):
        return "not confirmed"
    return "depends"


CLAIMS = (
    Claim(
        "trajectory",
        "A 3-D projection stands for the whole trajectory",
        "Sec. 3.2, Eq. 4-5",
        f"u, w1 and w2 hold more than {percent(HELD, 0)} of the total variance",
        all_three,
        ("confirmed", "The axis alone does nearly all of it, so this says little about the shape."),
    ),
    Claim(
        "trajectory",
        "The deviation from it is almost indistinguishable",
        "Sec. 3.2",
        f"w1 and w2 hold more than {percent(HELD, 0)} of what lies off the axis u",
        off_axis,
        (
            "depends",
            "What bends is nearly, but not quite, in one plane: enough for a picture and for the "
            "turning angle.",
        ),
    ),
    Claim(
        "trajectory",
        "The trajectory is close to a straight line",
        "Sec. 3.2.1 (1), Fig. 3",
        f"its reach along u is {AXIS_REACH:.0f} times that along w1 or more (u : w1 : w2)",
        reach,
        ("confirmed", "The bend is less than a tenth of the length."),
    ),
    Claim(
        "trajectory",
        "All trajectories have one boomerang shape, whatever they generate",
        "Sec. 3.2.1 (2)",
        f"Procrustes distance off the axis (w1, w2) of two samples of different prompts {SAME_SHAPE} or "
        "less, on average",
        shape,
        ("confirmed", "Different prompts have one shape, and different noises of one prompt even more so."),
    ),
    Claim(
        "trajectory",
        "So their curvature is nearly identical, and one plan serves all",
        "Sec. 3.2.3",
        f"turning angles of two samples of different prompts correlate by {SAME_CURVE} or more, on average",
        same_curve,
        (
            "depends",
            "The mean curve is common; single steps are not: samples of one prompt agree, those of "
            "different image prompts do less. A plan can only follow the mean.",
        ),
    ),
    Claim(
        "trajectory",
        "The spacing of the steps decreases towards the end",
        "Sec. 3.2.1 (3)",
        f"rank correlation of spacing and step {signed(-SAME_CURVE)} or less",
        spacing,
        (
            "not confirmed",
            "Spacing belongs to the schedule, not to the model: a shifted flow schedule takes ever "
            "longer steps, the paper's ever shorter ones.",
        ),
    ),
    Claim(
        "early and late",
        "Outputs change less from step to step late than early",
        "Sec. 3.2.2, Fig. 3c",
        "change of the raw output (flow velocity) at 3/4 of the steps below that at 1/4",
        similarity("velocity_change"),
        ("depends", "The image models yes, the video model no; in the last tenth they change most on all."),
    ),
    Claim(
        "early and late",
        "The same of the output as noise",
        "Sec. 3.2.2, Fig. 3c",
        "change of the noise that the output implies at 3/4 of the steps below that at 1/4",
        similarity("noise_change"),
        (
            "not confirmed",
            "The same outputs, expressed as noise, change more late. Which steps are alike depends on "
            "what is compared, so similarity alone does choose badly, as the paper says.",
        ),
    ),
    Claim(
        "early and late",
        "Later steps correct the error of an early reuse",
        "Sec. 3.2.2, Fig. 1a, 3a",
        "one step reused at 1/4 of the run: its error at the end is smaller than behind the step",
        early_growth,
        (
            "not confirmed",
            "The error grows until the end. Early reuse is cheap where early steps are short, not "
            "because it is corrected.",
        ),
    ),
    Claim(
        "early and late",
        "They do not correct that of a late reuse",
        "Sec. 3.2.2, Fig. 1a, 3b",
        "one step reused at 3/4: its error at the end is not smaller than behind the step",
        late_growth,
        (
            "depends",
            "On the image models a late error stays as large as it was, on the video model it grows; "
            "early errors grow several times more on all.",
        ),
    ),
    Claim(
        "early and late",
        "Late reuse costs more than early reuse: fidelity",
        "Fig. 1b, Sec. 3.2.2",
        "as many steps reused late: lower PSNR to uncached",
        late_fidelity,
        ("confirmed", "Late steps are longer, and the outputs change fastest at the very end."),
    ),
    Claim(
        "early and late",
        "Late reuse costs more than early reuse: quality",
        "Sec. 3.2.2, Fig. 3",
        "as many steps reused late: farther from the data, beyond the 95 % interval",
        late_quality,
        (
            "not confirmed",
            "Late reuse smooths more. The features of the classifier take smooth samples to be nearer "
            "to the data, though the data have more fine detail: the measures of quality contradict "
            "each other.",
        ),
    ),
    Claim(
        "early and late",
        "Late reuse leaves ripple-like noise",
        "Sec. 3.2.2, Fig. 3b",
        "more energy of fine detail than uncached, and than early reuse",
        late_ripples,
        ("not confirmed", "Plain reuse takes fine detail away, late more than early; it adds none."),
    ),
    Claim(
        "early and late",
        "Reuse is best distributed over the whole run",
        "Sec. 1, 3.2.2",
        "as many steps spread evenly: higher PSNR than early and late",
        spread_wins,
        (
            "not confirmed",
            "By PSNR early reuse is best and late reuse worst; by the distance of the last state the "
            "spread steps are best on the image model only.",
        ),
    ),
    Claim(
        "plans",
        "Steps of least curvature are the ones to reuse",
        "Sec. 3.2.3",
        "50 % plain reuse at the least curvature: higher PSNR than at the most, than evenly spread, and "
        "than "
        "most random plans",
        curvature_chooses,
        (
            "confirmed",
            "By turning angle, which is small early: a plan of early reuse. By Menger curvature, which is "
            "small late, the plan is worse than every random one: the definition decides.",
        ),
    ),
    Claim(
        "curvature",
        "Curvature and gamma are negatively correlated: curvature per length",
        "Sec. 3.3, Eq. 8, Fig. 2",
        f"Pearson and Spearman of Menger curvature and size of gamma {signed(-RELATED)} or less",
        gamma_falls("menger"),
        (
            "depends",
            "Weak where there are 50 steps. Menger curvature falls as the steps grow longer, and gamma "
            "rises a little: both follow the step number.",
        ),
    ),
    Claim(
        "curvature",
        "The same: turning angle, which is what Eq. 8 bounds the noise by",
        "Sec. 3.3, Eq. 8, Fig. 2",
        f"Pearson and Spearman of turning angle and size of gamma {signed(-RELATED)} or less",
        gamma_falls("turning"),
        (
            "not confirmed",
            "Where the trajectory turns most, at the end, gamma is largest. The sign in the paper's "
            "Fig. 2 depends on the definition of curvature.",
        ),
    ),
    Claim(
        "curvature",
        "Little curvature means little cache noise: curvature per length",
        "Sec. 3.3, Eq. 8",
        f"Pearson and Spearman of Menger curvature and noise / output {signed(RELATED)} or more",
        noise_rises("menger"),
        ("not confirmed", "Per length, curvature says nothing of the noise that a step's reuse causes."),
    ),
    Claim(
        "curvature",
        "The same: turning angle",
        "Sec. 3.3, Eq. 8",
        f"Pearson and Spearman of turning angle and noise / output {signed(RELATED)} or more",
        noise_rises("turning"),
        (
            "depends",
            "The substance of Eq. 8: where the trajectory turns, reuse is wrong. On the video model "
            "only the end shows it.",
        ),
    ),
    Claim(
        "curvature",
        "The cache noise of neighbouring steps is highly correlated",
        "Sec. 1, Eq. 7",
        f"median cosine {HIGH_COSINE} or more",
        cosine,
        ("confirmed", "This is what makes a correction possible at all."),
    ),
    Claim(
        "curvature",
        "The noise of a second reused step is gamma times gamma",
        "Eq. 9",
        f"median of the product within {percent(PRODUCT_WITHIN, 0)} of what is measured",
        product_rule,
        (
            "not confirmed",
            "The noise grows with the age of the cache: behind a full step whose own cache would have "
            "been three steps old it is about 1/3 and then 2/3 of what was measured there. Eq. 7 and 9 "
            "take about 1 for both, and subtract too much.",
        ),
    ),
    Claim(
        "ablation",
        "The correction improves reuse",
        "Sec. 4.4, Table 4",
        "higher PSNR on each plan and budget",
        always_gains("paper", "off"),
        (
            "confirmed",
            "Although its factors are too large. Gammas for the ages in use (age-aware) gain 3 to 9 dB more "
            "where there are 50 steps, and nothing more on the few-step model.",
        ),
    ),
    Claim(
        "ablation",
        "The filter improves it further: fidelity",
        "Sec. 4.4, Table 4",
        "higher PSNR than without filter on each plan and budget",
        always_gains("paper+filter", "paper"),
        (
            "not confirmed",
            "It leaves out half of the estimate, and gains PSNR in one of ten cases; on the video model, "
            "however, the last state is nearer to the uncached one with it.",
        ),
    ),
    Claim(
        "ablation",
        "The filter improves it further: quality",
        "Sec. 4.4, Table 4",
        "nearer to the data than without filter on the paper's plan, beyond the 95 % interval",
        filter_quality,
        (
            "depends",
            "On all models it takes out the fine detail that the too large correction adds; four videos are "
            "too few for the test. With 50 steps an age-aware gamma adds none, and needs no filter.",
        ),
    ),
    Claim(
        "slow and fast",
        "Slow (50 %): virtually no loss",
        "Abstract, Table 1",
        f"accuracy and confidence fall by no more than {100 * LOST_ACCURACY:.0f} point each, fine detail "
        f"changes by no more than {percent(CHANGED_DETAIL, 0)} (few-step: 5 of 16 steps, Table 2)",
        no_loss(0),
        (
            "depends",
            "The classifier tells no arm from uncached, so only the fine detail decides; on the "
            "few-step model it just fails.",
        ),
    ),
    Claim(
        "slow and fast",
        "Fast (60 %): virtually no loss",
        "Abstract, Table 1",
        "the same",
        no_loss(1),
        ("confirmed", "By the same measures."),
    ),
    Claim(
        "slow and fast",
        "2.00x and 2.50x faster (few-step: 1.45x)",
        "Table 1, 2",
        f"measured CPU time, at least {percent(NEAR_RATIO, 0)} of the ratio of steps",
        speed,
        (
            "depends",
            "By FLOPs nearly; on models this small the embedding, the final layer and the measured "
            "noise take more of the time than on large ones.",
        ),
    ),
    Claim(
        "slow and fast",
        "It is worth more than fewer steps",
        "Table 3 has both",
        "higher PSNR to uncached than the sampler with as many computed steps",
        beats_fewer,
        (
            "depends",
            "Only at 60 % on the image model are fewer plain steps better. The pack's default is above "
            "both everywhere.",
        ),
    ),
)
