"""What the rivals' forecasts weigh the last full steps with."""

import math

import pytest

from comfyui_omnicache.omnicache.forecast import REUSE, hermite, lagrange, steadied, taylor


def test_taylors_second_order_as_the_source_computes_it():
    """Full steps 3 apart, two steps on: not the parabola through the three, which is 2.222, -1.778, .556."""
    assert taylor(2, [3, 3]) == pytest.approx((1.889, -1.111, 0.222), abs=1e-3)
    assert lagrange(2, [0, -3, -6]) == pytest.approx((2.222, -1.778, 0.556), abs=1e-3)


def test_each_difference_is_divided_by_its_own_gap_and_both_by_the_last():
    f0, f1, f2, x = 7.0, 4.0, 3.0, 1.5
    newer, older = (f0 - f1) / 2, (f1 - f2) / 4
    expected = f0 + x * newer + x**2 / 2 * (newer - older) / 2
    w0, w1, w2 = taylor(x, [2, 4])
    assert w0 * f0 + w1 * f1 + w2 * f2 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parabola", "line", "share"),
    [
        ((1.875, -1.25, 0.375), (1.5, -0.5), (3 / 3.5) ** 2),  # half a gap ahead
        ((3.0, -3.0, 1.0), (2.0, -1.0), (3 / 7) ** 2),  # a whole one
        ((1.40625, -0.5625, 0.15625), (1.25, -0.25), 1.0),  # a quarter: nothing to steady
    ],
)
def test_a_parabola_keeps_the_less_of_its_bend_the_more_it_magnifies(parabola, line, share):
    weights = steadied(parabola, line)
    assert sum(weights) == pytest.approx(1)
    assert weights[2] == pytest.approx(share * parabola[2])
    assert weights[0] == pytest.approx(line[0] + share * (parabola[0] - line[0]))


@pytest.mark.parametrize("gaps", [[3], [3, 3], [1, 4]])
def test_a_line_is_continued_exactly_and_forward(gaps):
    known = [10.0, 10.0 - gaps[0], 10.0 - sum(gaps)]
    weights = taylor(2, gaps)
    assert sum(weight * value for weight, value in zip(weights, known, strict=False)) == pytest.approx(12)


def test_hermites_first_order_is_half_of_taylors_and_at_one_scale_the_same():
    assert hermite(2, [3], scale=1 / math.sqrt(2)) == pytest.approx(taylor(2, [3]))
    assert hermite(2, [3]) == pytest.approx(taylor(1, [3]))


@pytest.mark.parametrize(("distance", "second"), [(1, -0.125), (2, 0.25), (3, 0.875), (6, 4.25)])
def test_hermites_second_coefficient_as_published(distance, second):
    """The oldest of three values one step apart enters by the second difference alone."""
    assert hermite(distance, [1, 1])[2] == pytest.approx(second)


@pytest.mark.parametrize("rule", [taylor, hermite])
def test_weights_add_up_to_one_and_strength_0_reuses(rule):
    assert sum(rule(2, [3, 1])) == pytest.approx(1)
    assert rule(2, [3, 1], strength=0.0) == pytest.approx((1, 0, 0))
    assert rule(2, []) == REUSE
