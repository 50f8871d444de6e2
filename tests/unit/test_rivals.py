"""Each rival's plan against what its paper or its authors' code gives, at 50 steps where nothing else is
said."""

import dataclasses
import itertools

import numpy as np
import pytest

from comfyui_omnicache.omnicache.families import Branch
from comfyui_omnicache.omnicache.plan import EVERY_BLOCK, NOTHING
from comfyui_omnicache.omnicache.rivals import (
    RIVALS,
    GivenSchedule,
    magcache_steps,
    minimax_path,
    work,
)
from measured import linear_profile

JOINT = (Branch(("attention",), ("attn",)), Branch(("mlp",), ("mlp",)))
CROSS = (JOINT[0], Branch(("cross_attention",), ("cross",)), JOINT[1])
PILOTS = ("teacache", "adacache", "adacache-moreg")
IMAGE, VIDEO, LARGE = (JOINT,) * 3, (CROSS,) * 5, (CROSS,) * 28  # the demo models' blocks, and DiT-XL's


def plan(method, layout=VIDEO, steps=50, profile=None, **settings):
    return GivenSchedule(method, profile=profile, **settings).plan_for(np.linspace(1, 0, steps + 1), layout)


def full(plan):
    return [step for step, reused in enumerate(plan.reused) if not reused]


def blocks(step_parts):
    """The blocks of which everything is reused."""
    assert step_parts.attention == step_parts.cross_attention == step_parts.mlp
    return list(step_parts.mlp)


@pytest.mark.parametrize(
    ("interval", "steps"),
    [
        (2, [0, *range(1, 50, 2)]),
        (3, [0, *range(1, 50, 3)]),
        (4, [0, *range(1, 50, 4)]),
    ],
)
def test_fora_counts_down_so_the_last_step_is_full(interval, steps):
    assert full(plan("fora", knob=interval)) == steps
    assert len(steps) == {2: 26, 3: 18, 4: 14}[interval] and steps[-1] == 49


def test_foras_published_interval_is_3():
    assert plan("fora") == plan("fora", knob=3)


def test_delta_dit_reuses_the_papers_21_of_28_blocks_at_the_rear_and_then_at_the_front():
    steps = plan("delta-dit", LARGE, steps=20)
    assert full(steps) == list(range(0, 20, 2))
    assert blocks(steps.at(11)) == list(range(7, 28)) and blocks(steps.at(13)) == list(range(1, 22))


def test_delta_dits_spans_stay_different_in_small_models():
    image, video = plan("delta-dit", IMAGE), plan("delta-dit", VIDEO)
    assert [blocks(image.at(step)) for step in (29, 31)] == [[1, 2], [0, 1]]
    assert [blocks(video.at(step)) for step in (29, 31)] == [[2, 3, 4], [1, 2, 3]]


def test_deepcache_computes_the_outer_blocks_at_each_step():
    steps = plan("deepcache")
    assert full(steps) == list(range(0, 50, 3))
    assert blocks(steps.at(1)) == [1, 2, 3]
    # 17 of 50 steps compute all, 33 compute 2 of 5 blocks.
    assert work(steps, VIDEO) == pytest.approx((17 + 33 * 2 / 5) / 50)


def test_t_gate_as_the_source_runs_it_on_25_steps():
    steps = plan("t-gate", steps=25).parts
    attention = "".join("r" if parts.attention else "c" for parts in steps)
    cross = "".join("r" if parts.cross_attention else "c" for parts in steps)
    assert attention == "ccccrrcrrcrrcrc" + 10 * "c"
    assert cross == 15 * "c" + 10 * "r"
    assert not any(parts.mlp for parts in steps)


def test_t_gate_has_nothing_to_gate_in_a_model_without_cross_attention():
    steps = plan("t-gate", IMAGE, steps=25)
    assert steps.parts[15:] == (NOTHING,) * 10
    assert steps.selections == {plan("t-gate", steps=25).at(4)}


def test_magcache_with_constant_magnitudes_is_a_cadence_after_the_first_fifth():
    assert sorted(magcache_steps([1.0] * 50, 0.12, 2)) == [*range(10), *range(12, 50, 3)]
    assert sorted(magcache_steps([1.0] * 50, 0.12, 4)) == [*range(10), *range(14, 50, 5)]


def test_magcache_stops_where_the_summed_distance_reaches_the_threshold():
    """Ratios of .95: distances .05, .0975: the second sums up to .1475, which is over .12."""
    assert sorted(magcache_steps([0.95] * 50, 0.12, 2)) == [*range(10), *range(11, 50, 2)]
    # Over .04 at once: nothing is reused.
    assert sorted(magcache_steps([0.95] * 50, 0.04, 2)) == list(range(50))


def test_magcache_takes_the_ratios_from_the_profiles_residuals():
    shrinking = dataclasses.replace(linear_profile(50), residual=0.95 ** (2 * np.arange(50)))
    assert full(plan("magcache", profile=shrinking)) == [*range(10), *range(11, 50, 2)]
    # At half as many steps each lies twice as far from the next: .9025, and with .1855 the second is over.
    steps = full(plan("magcache", steps=25, profile=shrinking))
    assert steps[:8] == [0, 1, 2, 3, 4, 6, 8, 10]


def test_magcache_says_what_an_old_profile_lacks():
    old = dataclasses.replace(linear_profile(50), residual=np.zeros(50))
    with pytest.raises(ValueError, match="profile: it was measured before .* Calibrate again"):
        plan("magcache", profile=old)


@pytest.mark.parametrize("seed", range(5))
def test_the_minimax_path_is_the_best_of_all_paths(seed):
    errors = np.random.default_rng(seed).integers(1, 6, (11, 11)).astype(float)

    def sorted_errors(path):
        edges = itertools.pairwise(path)
        return sorted((errors[i, j] if j > i + 1 else 0.0 for i, j in edges), reverse=True)

    for count in (4, 6, 8):
        paths = [
            (0, *inner, 10)
            for inner in itertools.combinations(range(1, 10), count - 2)
            if all(j - i <= 4 for i, j in itertools.pairwise((0, *inner, 10)))
        ]
        found = sorted(minimax_path(errors, count, 4))
        assert len(found) == count and sorted_errors(found) == min(map(sorted_errors, paths))


def test_lemica_meets_its_budget_and_both_ends_are_full():
    """Noise grows with age and all steps are equal, so no run is longer than it must be."""
    steps = plan("lemica-local", profile=linear_profile(50))
    assert len(full(steps)) == 25 and full(steps)[0] == 0 and full(steps)[-1] == 49
    assert max(np.diff(full(steps))) == 3  # 25 reused steps in 24 gaps: one gap holds two


def test_lemica_weighs_caches_older_than_the_calibrated_ones_by_their_distance():
    """Of 50 steps 8 are full, 7 apart, which is all that is possible: the profile knows ages up to 3."""
    assert full(plan("lemica-local", knob=0.1, profile=linear_profile(50))) == list(range(0, 50, 7))


def test_even_spreads_exactly_as_many_as_asked():
    assert full(plan("even", full_steps=20)) == [round(i * 49 / 19) for i in range(20)]


@pytest.mark.parametrize(("interval", "count"), [(2, 26), (3, 18), (4, 14), (5, 12), (6, 10)])
def test_forecasts_come_after_three_full_steps_and_then_at_a_cadence(interval, count):
    steps = full(plan("taylorseer-2", knob=interval))
    assert len(steps) == count and steps == [0, 1, *range(2, 50, interval)]
    assert plan("hicache-1", knob=interval) == plan("taylorseer-2", knob=interval)


def test_forecasts_go_with_their_own_corrections():
    corrections = [GivenSchedule(method).default_correction for method in RIVALS if method[-1] in "12"]
    assert [(each.mode, each.order) for each in corrections] == [
        ("taylor", 1), ("taylor", 2), ("hermite", 1), ("hermite", 2),
    ]  # fmt: skip
    assert plan("taylorseer-1") == plan("taylorseer-1", knob=6)


@pytest.mark.parametrize(("interval", "own", "cross"), [(2, 17, 28), (3, 23, None)])
def test_pab_reuses_the_shares_of_the_source(interval, own, cross):
    """34 % of the steps at an interval of 2, 46 % at 3 and 56 % at 6, which is cross-attention's beside 2."""
    parts = plan("pab", knob=interval).parts
    assert sum(each.attention == EVERY_BLOCK for each in parts) == own
    if cross is not None:
        assert sum(each.cross_attention == EVERY_BLOCK for each in parts) == cross
    # 1000 sigma is 800 at step 10 and 100 at step 45, and neither is inside.
    assert not any(each.attention or each.cross_attention for each in (*parts[:11], *parts[45:]))


def test_pabs_first_mlps_are_reused_for_two_steps_after_each_of_five():
    parts = plan("pab").parts
    assert [step for step, each in enumerate(parts) if each.mlp] == [
        17, 18, 23, 24, 29, 30, 34, 35, 40, 41,
    ]  # fmt: skip
    assert {each.mlp for each in parts if each.mlp} == {range(1)}
    assert {each.mlp for each in plan("pab", LARGE).parts if each.mlp} == {range(5)}


def test_pab_runs_steps_in_full_of_which_the_model_has_nothing_to_reuse():
    """Without cross-attention every second step of the window, but for the reused MLPs."""
    steps = plan("pab", IMAGE)
    assert [step for step in range(11, 45) if not steps.is_reused(step)] == [
        12, 14, 16, 20, 22, 26, 28, 32, 36, 38, 42, 44,
    ]  # fmt: skip
    assert steps.refreshes


def test_pabs_window_is_of_the_same_signal_to_noise_for_other_models():
    """sigma / (1 + sigma) of theirs is sigma of a flow model."""
    sigmas = np.linspace(0.99, 0, 51)
    of_flow = GivenSchedule("pab").plan_for(sigmas, VIDEO)
    assert GivenSchedule("pab").plan_for(sigmas / (1 - sigmas), VIDEO) == of_flow


@pytest.mark.parametrize("method", [name for name in RIVALS if name not in PILOTS])
@pytest.mark.parametrize("layout", [IMAGE, VIDEO])
def test_the_first_step_is_full_and_faster_settings_have_fewer_full_steps(method, layout):
    profile = linear_profile(50)
    counts = []
    for full_steps in (40, 25, 15):
        given = plan(method, layout, profile=profile, full_steps=full_steps)
        assert given.at(0) == NOTHING and given.steps == 50
        counts.append(given.full)
    assert counts[0] >= counts[1] >= counts[2] and counts[2] < 50


@pytest.mark.parametrize(("method", "wanted", "nearest"), [("fora", 20, 18), ("delta-dit", 25, 25)])
def test_the_setting_of_the_nearest_number_of_full_steps_is_taken(method, wanted, nearest):
    assert plan(method, full_steps=wanted).full == nearest


def test_work_counts_branches():
    assert work(plan("fora"), VIDEO) == 18 / 50
    steps = plan("t-gate", steps=25)
    # 7 steps without attention, 10 without cross-attention: a third of the work each.
    assert work(steps, VIDEO) == pytest.approx(1 - (7 + 10) / 3 / 25)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "toca"}, "method: 'toca' is unknown; there are even, fora"),
        (
            {"method": "teacache", "full_steps": 20},
            "full_steps: 20 .* decides while sampling",
        ),
        ({"method": "fora", "knob": 0.5}, "knob: 0.5 is out of range; the interval of fora"),
        ({"method": "lemica-local"}, "profile: none is connected"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        GivenSchedule(**settings)


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="at least 8"):
        plan("fora", steps=6)
