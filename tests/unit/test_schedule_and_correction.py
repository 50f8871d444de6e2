import math

import numpy as np
import pytest
import torch

from comfyui_omnicache.omnicache.correction import Correction, Corrector, Gamma
from comfyui_omnicache.omnicache.noise_axis import UNSEEN_NOISE, forecast_axis
from comfyui_omnicache.omnicache.outlook import Outlook
from comfyui_omnicache.omnicache.plan import Budget, Constraints, Plan
from comfyui_omnicache.omnicache.schedule import UNMEASURED, Schedule, parse_overrides, unpredicted_error
from measured import linear_profile

SIGMAS = np.linspace(1, 0, 11)


def corrector(mode: str, with_profile: bool, sigmas=SIGMAS, **options) -> Corrector:
    outlook = Outlook(linear_profile(), sigmas) if with_profile else None
    return Corrector(Correction(mode, **options), list(sigmas), outlook, 0.5, forecast_axis(sigmas, "flow"))


@pytest.mark.parametrize("with_profile", [True, False])
@pytest.mark.parametrize(
    ("step", "cached", "source", "gamma"), [(5, 4, 3, 1.0), (6, 4, 3, 2.0), (6, 5, 3, 0.5)]
)
def test_age_aware_gamma_is_the_ratio_of_the_ages(with_profile, step, cached, source, gamma):
    assert corrector("age-aware", with_profile).gamma(step, cached, source).value == pytest.approx(gamma)


def test_age_aware_gamma_carries_over_to_half_the_steps():
    halved = corrector("age-aware", True, np.linspace(1, 0, 6))
    assert halved.gamma(3, 2, 1).value == pytest.approx(1.0, abs=0.05)


def test_the_papers_gamma_is_a_product_over_the_steps_since_the_cache():
    outlook = Outlook(linear_profile(), SIGMAS)
    factors = outlook.step_correlation()
    assert corrector("paper", True).gamma(6, 4, 3).value == pytest.approx(factors[5] * factors[6])


def test_a_gamma_beyond_one_and_a_half_age_ratios_is_limited_and_said():
    profile = linear_profile()
    wild = Outlook(profile.__class__(**{**profile.__dict__, "cross": profile.cross * 5}), SIGMAS)
    gamma = Corrector(Correction("age-aware"), list(SIGMAS), wild, 0.5, range(11)).gamma(5, 4, 3)
    assert gamma.value == pytest.approx(1.5) and gamma.was_limited


@pytest.mark.parametrize(
    ("step", "cached", "weights"),
    [
        (5, (4, 3), (2, -1)),
        (6, (4, 3), (3, -2)),
        (5, (4, 2), (1.5, -0.5)),
        (
            5,
            (4, 3, 2),
            (2 + 9 / 49, -1 - 2 * 9 / 49, 9 / 49),
        ),  # (3, -3, 1) magnifies 7 times, the line is (2, -1)
        (9, (8, 4, 0), (1.40625, -0.5625, 0.15625)),  # magnifies 2.1 times: the parabola itself
        (5, (4,), (1,)),
    ],
)
def test_a_forecast_weighs_the_last_full_steps_by_lagrange_in_log_snr(step, cached, weights):
    halving = [2.0**-number for number in range(10)]  # log-SNR of such a model rises evenly
    forecasts = Corrector(
        Correction("forecast", order=2), halving, None, 0.5, forecast_axis(halving, "other")
    )
    assert forecasts.weights(step, cached) == pytest.approx(weights)


def test_a_forecast_of_what_predicts_the_noise_goes_over_the_angle_of_the_state():
    sigmas = [math.inf, 1.0, 0.0]  # all noise, as much noise as picture, all picture: a right angle in halves
    forecasts = Corrector(
        Correction("forecast", order=1), sigmas, None, 0.5, forecast_axis(sigmas, "epsilon")
    )
    assert forecasts.weights(2, (1, 0)) == pytest.approx((2, -1))


def test_a_forecast_uses_steps_only_as_far_as_their_sigmas_fall():
    sigmas = [1.0, 0.8, 0.8, 0.4, 0.2, 0.4]
    forecasts = Corrector(Correction("forecast", order=2), sigmas, None, 0.5, forecast_axis(sigmas, "other"))
    assert forecasts.weights(4, (3, 2, 1)) == pytest.approx((2, -1))
    assert forecasts.weights(5, (4, 3)) == (1,)


def test_mode_paper_without_a_profile_is_refused():
    with pytest.raises(ValueError, match="mode 'paper'"):
        corrector("paper", False)


def test_correction_takes_gamma_times_the_noise_out_of_the_output():
    x, output, noise, sigma = (torch.randn(2, 4, 8, 8) for _ in range(3)), None, None, None
    x, output, noise = x
    sigma = torch.tensor([0.5, 0.5]).view(2, 1, 1, 1)
    reused = x - sigma * (output + 0.5 * noise)  # x0 of an output that is off by half the noise
    fixed = corrector("age-aware", False).apply(reused, noise, Gamma(0.5), sigma, step=5)
    assert torch.allclose(fixed, x - sigma * output, atol=1e-6)


def test_the_filter_pair_is_low_before_the_switch_and_high_after():
    noise, sigma, zero = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 8, 8)
    pair = corrector("age-aware", False, filter="low-high")
    assert torch.allclose(
        pair.apply(zero, noise, Gamma(1.0), sigma, step=2), noise, atol=1e-6
    )  # sigma 0.8: the mean passes
    assert torch.allclose(
        pair.apply(zero, noise, Gamma(1.0), sigma, step=8), zero, atol=1e-6
    )  # sigma 0.2: it does not


def two_bands(high: float) -> Outlook:
    """Noise of one size in the first and the last band; gamma is the age ratio in the first, and that times
    `high` in the last."""
    profile = linear_profile()
    noise, cross = profile.noise.copy(), profile.cross.copy()
    noise[..., -1], cross[..., -1] = noise[..., 0], high * cross[..., 0]
    return Outlook(profile.__class__(**{**profile.__dict__, "noise": noise, "cross": cross}), SIGMAS)


def test_per_band_gammas_are_drawn_towards_the_common_one():
    gamma = Corrector(Correction("per-band"), list(SIGMAS), two_bands(0.25), 0.5, range(11)).gamma(5, 4, 3)
    # Two trajectories say 1 and 1/4, the common gamma of both bands is 5/8 and counts as a third trajectory.
    assert gamma.bands == pytest.approx(((2 + 0.625) / 3, 0.625, 0.625, 0.625, (0.5 + 0.625) / 3))
    assert not gamma.was_limited


def test_per_band_gammas_are_limited_each_and_said():
    gamma = Corrector(Correction("per-band"), list(SIGMAS), two_bands(9.0), 0.5, range(11)).gamma(6, 5, 3)
    assert gamma.bands[-1] == pytest.approx(0.75) and gamma.was_limited  # 1.5 age ratios of 1/2


def test_per_band_takes_out_each_band_by_its_gamma():
    fixed = Corrector(Correction("per-band", strength=0.5), list(SIGMAS), two_bands(0.25), 0.5, range(11))
    rows = torch.arange(16).view(1, 1, 16, 1).expand(1, 1, 16, 16)
    checks = (-1.0) ** (rows + rows.transpose(2, 3))  # the highest frequency there is
    noise, one = 2.0 + checks, torch.ones(1, 1, 1, 1)
    taken = fixed.apply(torch.zeros_like(noise), noise, Gamma(9.0, bands=(1, 0, 0, 0, 0.5)), one, step=5)
    assert torch.allclose(taken, 0.5 * (1 * 2.0 + 0.5 * checks), atol=1e-5)


def test_per_band_without_a_profile_is_the_age_ratio():
    assert corrector("per-band", False).gamma(6, 4, 3) == Gamma(pytest.approx(2.0))


@pytest.mark.parametrize(("name", "value"), [("cutoff", 0.0), ("switch_point", 2.0), ("strength", -1.0)])
def test_corrections_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        Correction(**{name: value})


def test_an_order_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match="order: 3"):
        Correction("forecast", order=3)


def test_curvature_reuses_the_straightest_steps():
    profile = linear_profile()
    turning = np.array([0, 5, 1, 9, 1, 9, 1, 9, 1, 9], dtype=float)
    bent = profile.__class__(**{**profile.__dict__, "turning": turning})
    plan = Schedule(Budget("reuse ratio", 0.4), "curvature", profile=bent).plan_for(SIGMAS)
    assert [step for step, reused in enumerate(plan.reused) if reused] == [2, 4, 6, 8]


def test_reach_takes_short_runs():
    plan = Schedule(Budget("reuse ratio", 0.4)).plan_for(SIGMAS)
    text = "".join("r" if reused else "F" for reused in plan.reused)
    assert "rrr" not in text and text.count("r") == 4


def test_even_spreads_and_needs_no_profile():
    plan = Schedule(Budget("reuse ratio", 0.5), "even").plan_for(np.linspace(1, 0, 51))
    text = "".join("r" if reused else "F" for reused in plan.reused)
    assert text.count("r") == 25 and "rrr" not in text and "FFF" not in text[2:]


@pytest.mark.parametrize("prediction", ["flow", "other"])
def test_reach_is_the_product_of_three_distances_in_log_snr_times_the_root_of_the_length(prediction):
    axis = np.arange(-2.0, 3.0)  # of four steps and the end
    ratio = np.exp(-axis) - UNSEEN_NOISE
    sigmas = ratio / (1 + ratio) if prediction == "flow" else ratio
    cost, length = (
        Schedule(Budget("reuse ratio", 0.5)).step_cost(sigmas, 1, prediction),
        sigmas[2] - sigmas[3],
    )
    if prediction == "other":  # over the size of the state
        length = np.arcsinh(sigmas[2]) - np.arcsinh(sigmas[3])
    assert cost(2, 1, 0, 3) == pytest.approx(1 * 2 * 1 * length**0.5)
    assert cost(2, 1, 0, 4) == pytest.approx(1 * 2 * 2 * length**0.5)  # nothing is computed after it


def test_reach_spares_the_ends_of_a_flow_schedule_and_needs_no_profile():
    """There the steps are long in log-SNR, or have few steps behind them."""
    plan = Schedule(Budget("reuse ratio", 0.5), "reach").plan_for(np.linspace(1, 0, 51))
    full = [not reused for reused in plan.reused]
    assert sum(full) == 25 and all(full[:3]) and sum(full[-6:]) >= 4 and sum(full[20:30]) <= 5


def test_the_model_says_what_it_predicts_where_its_noise_levels_do_not():
    """A run that begins at little noise looks like a flow model's."""
    sigmas, schedule = np.geomspace(0.8, 0.01, 21), Schedule(Budget("reuse ratio", 0.5))
    assert schedule.plan_for(sigmas, prediction="flow") == schedule.plan_for(sigmas)
    assert schedule.plan_for(sigmas, prediction="epsilon") != schedule.plan_for(sigmas)


def test_the_predicted_error_counts_what_repay_leaves():
    profile = linear_profile()
    profile = profile.__class__(**{**profile.__dict__, "cross": np.zeros_like(profile.cross)})
    schedule = Schedule(Budget("reuse ratio", 0.2), profile=profile)
    paid, unpaid = (
        schedule.predicted_error(Plan.of([step == reused for step in range(10)]), SIGMAS) for reused in (5, 9)
    )
    # log-SNR of sigma .6, .5, .4 is -.405, 0, .405 (and .02 more apart from 1 %): half of the way back to
    # step 3
    axis = np.log(SIGMAS / (1 - np.minimum(SIGMAS, 0.999)) + UNSEEN_NOISE)
    share = (axis[5] - axis[6]) / (axis[3] - axis[5])
    assert share == pytest.approx(0.485, abs=0.01)
    assert paid == pytest.approx(0.1 * 0.1 * share)  # noise of 0.1, a step of 0.1 of the way
    assert unpaid == pytest.approx(0.1 * 0.1, rel=0.02)


def test_an_error_that_calibration_could_not_measure_is_none():
    profile = linear_profile()
    blind = profile.__class__(**{**profile.__dict__, "output": np.zeros_like(profile.output)})
    assert unpredicted_error(blind, SIGMAS)(5, 4, 3, 6) == UNMEASURED
    schedule = Schedule(Budget("reuse ratio", 0.4), profile=blind)
    assert math.isnan(schedule.predicted_error(schedule.plan_for(SIGMAS), SIGMAS))


def test_a_cost_that_is_measured_needs_a_profile():
    with pytest.raises(ValueError, match="cost 'curvature' is measured"):
        Schedule(Budget("reuse ratio", 0.5), "curvature")


def test_turning_angles_add_up_to_the_same_sum_at_other_step_counts():
    profile = linear_profile()
    finer = Outlook(profile, np.linspace(1, 0, 31)).turning()
    assert len(finer) == 30
    assert finer.sum() == pytest.approx(profile.turning_mean().sum(), rel=0.15)


def test_noise_halves_where_steps_are_half_as_long():
    exact, finer = Outlook(linear_profile(), SIGMAS), Outlook(linear_profile(), np.linspace(1, 0, 21))
    assert exact.is_exact and not finer.is_exact
    assert exact.noise(5, 4) == pytest.approx(0.1)
    assert finer.noise(10, 9) == pytest.approx(0.05, rel=0.1)


def test_overrides_are_read():
    assert parse_overrides("5 full, 10-12 reuse,") == (frozenset({5}), frozenset({10, 11, 12}))
    assert parse_overrides("") == (frozenset(), frozenset())
    with pytest.raises(ValueError, match="overrides: 'all'"):
        parse_overrides("all")


@pytest.mark.parametrize("cost", ["curvature", "reach", "even"])
def test_noise_levels_that_rise_in_between_are_planned(cost):
    """As a sampler that restarts has them."""
    sigmas = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    schedule = Schedule(Budget("reuse ratio", 0.4), cost, profile=linear_profile())
    costs = schedule.step_cost(sigmas, 5)
    assert all(costs(step, step - 1, step - 2, step + 1) >= 0 for step in range(2, 13))
    assert sum(schedule.plan_for(sigmas).reused) == 5


def test_by_default_half_of_the_steps_are_reused_in_runs_of_two():
    usual = Constraints().with_longest_run(50, 25)
    assert (usual.max_consecutive, usual.protect_first, usual.protect_last) == (2, 2, 0)
