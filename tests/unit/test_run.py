"""A model of two blocks whose arithmetic a reader can follow: each adds its weight times the time, head adds
x."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from comfyui_omnicache.omnicache.correction import Correction, Corrector
from comfyui_omnicache.omnicache.families import BlockList, Family, places_of
from comfyui_omnicache.omnicache.forecast import REUSE, STEADY, lagrange
from comfyui_omnicache.omnicache.lane import JoinedCaches, Rows
from comfyui_omnicache.omnicache.noise_axis import forecast_axis
from comfyui_omnicache.omnicache.plan import EVERYTHING, NOTHING, Plan
from comfyui_omnicache.omnicache.run import CacheRun, Call
from comfyui_omnicache.omnicache.storage import Kept, Storage
from comfyui_omnicache.omnicache.tap import Blocks, StackTap
from comfyui_omnicache.omnicache.trail import MOST_STAGES

FAMILY = Family("plain", "Plain", (BlockList("blocks"),))
PLACES = places_of(
    SimpleNamespace(blocks=torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())), FAMILY
)
SIGMAS = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


class Model:
    """hidden = x; two blocks each add what `adds` makes of sigma; x0 = x - sigma * hidden."""

    def __init__(self, tap: StackTap, adds: Callable[[float], float]) -> None:
        self.tap, self.adds, self.blocks_run, self.heads_run = tap, adds, 0, 0

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        hidden = x.flatten(2).transpose(1, 2)  # (rows, tokens, channels)
        for place in PLACES:

            def block(args):
                self.blocks_run += 1
                return {"img": args["img"] + self.adds(sigma)}

            callback = self.tap.callbacks[place.key]
            hidden = callback({"img": hidden}, {"original_block": block})["img"]
        self.heads_run += 1
        return x - sigma * hidden.transpose(1, 2).reshape(x.shape)


class ExactStorage(Storage):
    """Keeps changes in full width, for numbers that can be checked to the last digit."""

    def keep_change(self, tensor: torch.Tensor) -> Kept:
        return self.keep(tensor)


def run_of(mask: str, adds: Callable[[float], float] = lambda sigma: sigma, **correction):
    tap = StackTap(Blocks(FAMILY, PLACES))
    plan = Plan.of([step == "r" for step in mask])
    corrector = Corrector(Correction(**correction), SIGMAS, None, 0.5, forecast_axis(SIGMAS, "flow"))
    return CacheRun(plan, corrector, tap, ExactStorage()), Model(tap, adds)


def evaluate(run, model, step: int, rows=("cond",), x=None, **options) -> torch.Tensor:
    sigma = SIGMAS[step]
    x = torch.full((len(rows), 1, 2, 2), 3.0) if x is None else x
    call = Call(lambda: model(x, sigma), x, torch.full((len(x),), sigma), tuple(rows), **options)
    return run.evaluate(call)


def test_a_reused_step_adds_the_cached_residual():
    run, model = run_of("Fr", mode="off")
    assert evaluate(run, model, 0)[0, 0, 0, 0] == pytest.approx(3 - 1.0 * (3 + 2 * 1.0))
    run.step_finished(0)
    # the blocks would now add 2 * 0.8; the cache holds 2 * 1.0 from the step before
    assert evaluate(run, model, 1)[0, 0, 0, 0] == pytest.approx(3 - 0.8 * (3 + 2 * 1.0))
    assert model.blocks_run == 2


def test_the_corrected_step_is_exact_where_the_residual_changes_evenly():
    run, model = run_of("FFr", mode="age-aware")
    for step in (0, 1):
        evaluate(run, model, step)
        run.step_finished(step)
    assert evaluate(run, model, 2)[0, 0, 0, 0] == pytest.approx(3 - 0.6 * (3 + 2 * 0.6))


def test_and_so_is_a_second_one_in_a_row_whose_cache_is_twice_as_old():
    run, model = run_of("FFrr", mode="age-aware")
    for step in (0, 1, 2):
        evaluate(run, model, step)
        run.step_finished(step)
    assert evaluate(run, model, 3)[0, 0, 0, 0] == pytest.approx(3 - 0.4 * (3 + 2 * 0.4))
    assert model.blocks_run == 4


def go_to(run, model, step: int, rows=("cond",), first: int = 0) -> torch.Tensor:
    """Evaluates the steps from the first to this one."""
    for before in range(first, step):
        evaluate(run, model, before, rows)
        run.step_finished(before)
    return evaluate(run, model, step, rows)


def line(sigma: float) -> float:
    """What the forecast takes as its axis."""
    return math.log((1 - sigma) / sigma) if sigma < 1 else math.log(0.001 / 0.999)


def parabola(sigma: float) -> float:
    return line(sigma) ** 2


@pytest.mark.parametrize(
    ("adds", "order", "mask"), [(line, 1, "FFrr"), (line, 2, "FFFrr"), (parabola, 2, "FFrFr")]
)
def test_a_forecast_is_exact_for_a_residual_that_is_a_polynomial_of_its_order(adds, order, mask):
    run, model = run_of(mask, adds, mode="forecast", order=order)
    step = len(mask) - 1
    sigma = SIGMAS[step]
    exact = 3 - sigma * (3 + 2 * adds(sigma))
    assert go_to(run, model, step)[0, 0, 0, 0] == pytest.approx(exact)
    assert model.blocks_run == 2 * mask.count("F")


def test_a_forecast_runs_no_shadows():
    run, model = run_of("FFrFr", mode="forecast")
    go_to(run, model, 4)
    assert model.heads_run == 5


def test_a_forecast_of_order_2_is_of_order_1_until_there_are_three_full_steps():
    run, model = run_of("FFr", line, mode="forecast", order=2)
    assert go_to(run, model, 2)[0, 0, 0, 0] == pytest.approx(3 - 0.6 * (3 + 2 * line(0.6)))


def test_half_strength_forecasts_half_of_the_change():
    run, model = run_of("FFr", line, mode="forecast", strength=0.5)
    half = (line(0.6) + line(0.8)) / 2
    assert go_to(run, model, 2)[0, 0, 0, 0] == pytest.approx(3 - 0.6 * (3 + 2 * half))


def test_a_row_with_one_cache_only_runs_full_and_is_reported():
    run, model = run_of("Frr", mode="forecast")
    go_to(run, model, 1)
    assert model.blocks_run == 4
    run.step_finished(1)
    evaluate(run, model, 2)
    assert model.blocks_run == 4  # now there are two
    assert run.close().notes == {"there was one cache only, and a forecast needs two": 1}


def test_the_rivals_forecasts_are_exact_for_a_residual_that_goes_on_in_a_line():
    for mask, order in (("FFrr", 1), ("FFFrr", 2), ("FrFrr", 2)):
        run, model = run_of(mask, lambda sigma: 3 * sigma, mode="taylor", order=order)
        step = len(mask) - 1
        sigma = SIGMAS[step]
        assert go_to(run, model, step)[0, 0, 0, 0] == pytest.approx(3 - sigma * (3 + 6 * sigma))


def test_with_one_cache_only_they_reuse_it_plainly():
    run, model = run_of("Fr", mode="taylor")
    assert go_to(run, model, 1)[0, 0, 0, 0] == pytest.approx(3 - 0.8 * (3 + 2 * 1.0))
    assert model.blocks_run == 2 and run.close().notes == {}


def test_a_plan_that_refreshes_parts_of_a_cache_takes_no_correction():
    plan = Plan((NOTHING, EVERYTHING), refreshes=True)
    corrector = Corrector(Correction("forecast"), SIGMAS, None, 0.5, forecast_axis(SIGMAS, "flow"))
    with pytest.raises(ValueError, match="correction: mode 'forecast' .* Set mode to 'off'"):
        CacheRun(plan, corrector, StackTap(Blocks(FAMILY, PLACES)))


def test_a_changed_shape_forgets_the_caches_of_the_old_one():
    run, model = run_of("FFFr", mode="forecast")
    go_to(run, model, 1)
    run.step_finished(1)
    other = torch.zeros(1, 1, 4, 4)
    evaluate(run, model, 2, x=other)
    run.step_finished(2)
    evaluate(run, model, 3, x=other)
    assert model.blocks_run == 8
    assert "there was one cache only, and a forecast needs two" in run.close().notes


def test_lanes_that_were_computed_at_other_steps_are_each_forecast_by_their_own():
    run, model = run_of("FFrFr", parabola, mode="forecast", order=2)
    go_to(run, model, 1, ("old",))
    run.step_finished(1)
    # At step 2 the new row has no cache yet, so both run full: caches of 0, 1, 2, 3 and of 2, 3.
    both = go_to(run, model, 4, ("old", "new"), first=2)
    slope = (parabola(0.4) - parabola(0.6)) / (line(0.4) - line(0.6))
    of_new = parabola(0.4) + slope * (line(0.2) - line(0.4))
    magnified = sum(abs(each) for each in lagrange(line(0.2), [line(0.4), line(0.6), line(0.8)]))
    of_old = of_new + (STEADY / magnified) ** 2 * (parabola(0.2) - of_new)
    expected = [3 - 0.2 * (3 + 2 * residual) for residual in (of_old, of_new)]
    assert both[:, 0, 0, 0].tolist() == pytest.approx(expected)


def test_a_forecast_writes_into_no_cache():
    run, model = run_of("FFFr", mode="forecast", order=2)
    go_to(run, model, 2)
    run.step_finished(2)
    (lane,) = run._lanes.values()
    before = [rows.view().clone() for (rows,) in (lane.cache, *lane.changes)]
    evaluate(run, model, 3)
    after = [rows.view() for (rows,) in (lane.cache, *lane.changes)]
    assert len(before) == 3
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_lanes_do_not_share_caches():
    run, model = run_of("Fr", mode="off")
    x = torch.stack((torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 5.0)))
    evaluate(run, model, 0, ("cond", "uncond"), x)
    run.step_finished(0)
    together = evaluate(run, model, 1, ("uncond", "cond"), x.flip(0))  # the other order: same lanes
    assert together[:, 0, 0, 0].tolist() == pytest.approx([5 - 0.8 * 7, 1 - 0.8 * 3])


def test_a_row_that_comes_in_later_runs_full_and_is_reported():
    run, model = run_of("Frr", mode="off")
    evaluate(run, model, 0)
    run.step_finished(0)
    evaluate(run, model, 1, ("new",))
    assert model.blocks_run == 4
    assert "a conditioning came in without a cache" in run.close().notes


def test_a_row_that_missed_a_full_step_is_not_reused_and_its_cache_is_freed():
    run, model = run_of("FrFrr", mode="off")
    for step, row in enumerate(("a", "a", "b")):  # b: a context window that has moved, say
        evaluate(run, model, step, (row,))
        run.step_finished(step)
    assert [key.row for key in run._lanes] == ["b"]
    evaluate(run, model, 3, ("a",))
    assert model.blocks_run == 6  # computed at 0, 2 and 3
    report = run.close()
    assert report.evaluations_full == 3 and report.evaluations_reused == 1
    assert report.cache_bytes == 32  # two residuals of four numbers, until the older was freed


def test_a_row_that_stays_away_for_reused_steps_only_is_reused():
    run, model = run_of("Frr", mode="off")
    evaluate(run, model, 0, ("a", "b"))
    run.step_finished(0)
    evaluate(run, model, 1, ("b",))
    run.step_finished(1)
    evaluate(run, model, 2, ("a",))
    assert model.blocks_run == 2


def test_a_step_that_the_sampler_reports_twice_frees_nothing():
    run, model = run_of("Frr", mode="off")
    evaluate(run, model, 0)
    run.step_finished(0)
    evaluate(run, model, 1)
    run.step_finished(1)
    run.step_finished(1)
    evaluate(run, model, 2)
    assert model.blocks_run == 2


def test_a_sampler_that_never_says_where_its_steps_end_is_computed_and_fills_no_memory():
    run, model = run_of("Frrrr", mode="off")
    for _ in range(40):
        evaluate(run, model, 0)
    assert model.blocks_run == 80 and len(run._lanes) == MOST_STAGES
    assert run.close().notes == {"the sampler does not say where its steps end": 40 - MOST_STAGES}


def test_a_forecast_does_not_go_on_over_a_change_of_what_acts_beside_the_conditioning():
    run, model = run_of("FFFr", line, mode="forecast", order=2)
    for step in range(3):
        evaluate(run, model, step, beside=(step < 2,))
        run.step_finished(step)
    evaluate(run, model, 3)
    assert model.blocks_run == 8  # one cache only since it ended, so computed
    assert run.close().notes == {"there was one cache only, and a forecast needs two": 1}


def test_no_noise_is_measured_over_a_change_of_what_acts_beside_the_conditioning():
    """It would be the change itself, and be taken for what reuse does."""
    run, model = run_of("FFFr", mode="age-aware")
    for step in range(3):
        evaluate(run, model, step, beside=(step < 2,))
        run.step_finished(step)
    evaluate(run, model, 3)
    assert run.close().notes == {"no noise was measured yet": 1}


def test_a_changed_shape_runs_full_and_is_reported():
    run, model = run_of("Fr", mode="off")
    evaluate(run, model, 0)
    run.step_finished(0)
    evaluate(run, model, 1, x=torch.zeros(1, 1, 4, 4))
    assert model.blocks_run == 4
    assert any("shape" in note for note in run.close().notes)


def test_a_refused_call_passes_untouched():
    run, model = run_of("Fr", mode="off")
    x = torch.ones(1, 1, 2, 2)
    call = Call(lambda: model(x, 1.0), x, torch.ones(1), ("cond",), refusal="because")
    assert torch.equal(run.evaluate(call), model(x, 1.0))
    assert run.close().notes["because"] == 1


def test_a_noise_that_is_not_finite_is_left_out():
    run, model = run_of("FFr", mode="age-aware")
    evaluate(run, model, 0)
    run.step_finished(0)
    lane = next(iter(run._lanes.values()))
    lane.cache[0].kept.data.fill_(float("nan"))  # the shadow of the next full step will be NaN
    evaluate(run, model, 1)
    run.step_finished(1)
    assert torch.isfinite(evaluate(run, model, 2)).all()


def test_the_report_counts_evaluations_and_steps():
    run, model = run_of("FFrF")
    for step in range(4):
        evaluate(run, model, step, ("cond", "uncond"))
        run.step_finished(step)
    run.sampling_finished(torch.zeros(1))
    report = run.close()
    assert (report.evaluations_full, report.evaluations_asked) == (6, 8)
    assert report.as_dict()["step_kinds"] == ["full", "full", "reuse", "full"]
    assert "computed 3 of 4 steps (6 of 8 evaluations)" in report.summary()


def test_closing_frees_the_lanes():
    run, model = run_of("FF")
    evaluate(run, model, 0)
    run.close()
    assert not run._lanes


@pytest.mark.parametrize(("joined", "expected"), [("no", 10.0), ("text-image", 10.0), ("image-text", 10.0)])
def test_image_tokens_are_found_in_a_joined_stream(joined, expected):
    """The last block's stream may hold text tokens before or after the image's; only the image's are
    replayed."""
    lists = (BlockList("first"), BlockList("second", "single_block", joined))
    family = Family("joined", "Joined", lists)
    one = torch.nn.Sequential(torch.nn.Identity())
    tap = StackTap(Blocks(family, places_of(SimpleNamespace(first=one, second=one), family)))
    image, text = torch.ones(1, 3, 2), torch.zeros(1, 2, 2)

    def stream(tokens):
        return {
            "no": tokens,
            "text-image": torch.cat((text, tokens), 1),
            "image-text": torch.cat((tokens, text), 1),
        }[joined]

    def forward():
        out = tap.callbacks["double_block", 0](
            {"img": image}, {"original_block": lambda a: {"img": a["img"] + 4}}
        )
        return tap.callbacks["single_block", 0](
            {"img": stream(out["img"])}, {"original_block": lambda a: {"img": a["img"] + 5}}
        )["img"]

    _, (residual,) = tap.capture(forward, Kept.as_is)
    assert torch.equal(residual.whole(), torch.full((1, 3, 2), 9.0))
    replayed = tap.replay(forward, [residual.whole()])
    assert replayed.sum().item() == expected * 6


def test_in_place_writes_between_blocks_do_not_reach_the_replayed_entry():
    tap = StackTap(Blocks(FAMILY, PLACES))
    entry = torch.ones(1, 2, 2)

    def forward():
        out = tap.callbacks["double_block", 0]({"img": entry}, {})["img"]
        out += 100.0  # what a ControlNet does
        return tap.callbacks["double_block", 1]({"img": out}, {})["img"]

    replayed = tap.replay(forward, [torch.ones(1, 2, 2)], writes_between=True)
    assert torch.equal(replayed, torch.full((1, 2, 2), 2.0))
    assert torch.equal(entry, torch.ones(1, 2, 2))


def test_a_cache_that_is_replayed_as_it_is_is_not_copied():
    whole = torch.arange(6.0).view(6, 1)
    caches = [(part,) for part in Rows.split(Kept.as_is(whole), 3)]
    assert JoinedCaches(caches)[0] is whole
    assert JoinedCaches(caches, [[cache] for cache in caches], [REUSE] * 3)[0] is whole


def test_rows_are_joined_without_a_copy_when_they_belong_together():
    whole = torch.arange(6.0).view(6, 1)
    parts = Rows.split(Kept.as_is(whole), 3)
    assert Rows.join(parts) is whole
    assert torch.equal(Rows.join([parts[2], parts[0]]).flatten(), torch.tensor([4.0, 5.0, 0.0, 1.0]))


def test_steps_beyond_the_plan_run_full():
    assert not Plan.of((False, True)).is_reused(2) and not Plan.of((False, True)).is_reused(-1)
    assert np.isclose(Plan.of((False, True)).speedup(0.0), 2.0)
