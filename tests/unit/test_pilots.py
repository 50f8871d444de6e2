"""Pilots on signals whose change a reader can follow: tensors of one number each."""

import numpy as np
import pytest
import torch

from comfyui_omnicache.omnicache.pilots import (
    FLUX_POLYNOMIAL,
    AdaCache,
    MotionAdaCache,
    TeaCache,
    fit_polynomial,
    motion_of,
    relative_change,
)
from comfyui_omnicache.omnicache.plan import EVERYTHING, NOTHING
from comfyui_omnicache.omnicache.rivals import GivenSchedule

ITSELF = (1.0, 0.0)  # p(x) = x


def tokens(value: float) -> torch.Tensor:
    return torch.full((1, 4, 2), value)


def growing(rate: float, steps: int) -> list[torch.Tensor]:
    """Each is larger than the one before by this share of it."""
    return [tokens((1 + rate) ** step) for step in range(steps)]


def reused(pilot, outputs: list[torch.Tensor], frames: int = 1) -> list[int]:
    """The steps that a pilot reuses, asked and shown the same."""
    steps = []
    for step, output in enumerate(outputs):
        if pilot.decide(step, output):
            steps.append(step)
        else:
            pilot.show(step, output, frames)
    return steps


def test_the_change_is_relative_to_the_older_one():
    assert relative_change(tokens(2.0), tokens(3.0)) == 0.5
    assert relative_change(tokens(2.0), tokens(-2.0)) == 2.0


def test_teacache_adds_up_changes_until_the_threshold_and_then_computes():
    """.1 and .2 are under .25, .3 is not: two reused steps after each full one; both ends are full."""
    assert reused(TeaCache(10, 0.25, ITSELF), growing(0.1, 10)) == [1, 2, 4, 5, 7, 8]
    assert reused(TeaCache(9, 0.25, ITSELF), growing(0.1, 9)) == [1, 2, 4, 5, 7]


def test_teacache_compares_with_the_step_before_whether_it_was_reused_or_not():
    """The whole change is .21 over two steps, .1 at each; only the sum of the latter is under .205."""
    assert 2 in reused(TeaCache(10, 0.205, ITSELF), growing(0.1, 10))


def test_on_flux_teacache_is_nearly_a_cadence():
    """The published polynomial is flat: .21 at a change of .1, as at .05."""
    assert reused(TeaCache(12, 0.25, FLUX_POLYNOMIAL), growing(0.1, 12)) == [1, 3, 5, 7, 9]
    assert reused(TeaCache(12, 0.25, FLUX_POLYNOMIAL), growing(0.05, 12)) == [1, 3, 5, 7, 9]


def test_teacache_computes_where_the_signal_cannot_be_compared():
    signals = growing(0.01, 10)
    signals[4] = torch.ones(1, 6, 2)
    signals[7] = tokens(float("nan"))
    assert reused(TeaCache(10, 0.25, ITSELF), signals) == [1, 2, 3, 6]


def test_adacache_goes_as_far_as_its_book_says_at_30_steps():
    """A change of .10 between steps 0 and 1 is between .08 and .16: the next full step is 5 later. There the
    change is 1.1 ** 5 - 1 = .61 over 5 steps, .122 each: 5 again."""
    full = set(range(30)) - set(reused(AdaCache(30, 1.0), growing(0.1, 30)))
    assert sorted(full) == [0, 1, 6, 11, 16, 21, 26, 28, 29]


def test_adacaches_factor_raises_the_thresholds():
    assert reused(AdaCache(30, 1.0), growing(0.5, 30)) == []
    assert reused(AdaCache(30, 100.0), growing(0.5, 30)) == [step for step in range(2, 28) if (step - 1) % 6]


def test_adacaches_book_is_scaled_to_other_numbers_of_steps():
    """At 60 steps half the change at each leads twice as far."""
    assert AdaCache(60, 1.0)._book[:2] == [(0.04, 12), (0.08, 10)]
    assert AdaCache(15, 1.0)._book[-1] == (float("inf"), 1)
    full = set(range(60)) - set(reused(AdaCache(60, 1.0), growing(0.05, 60)))
    assert sorted(full)[:4] == [0, 1, 11, 21]


def test_adacache_learns_nothing_from_a_reused_step_that_was_computed_for_want_of_a_cache():
    pilot, outputs = AdaCache(30, 1.0), growing(0.1, 30)
    assert reused(pilot, outputs[:3]) == [2]
    pilot.show(2, outputs[2] * 100, 1)
    assert [step for step in range(3, 8) if pilot.decide(step, outputs[step])] == [3, 4, 5]


def test_motion_is_the_difference_of_neighbouring_frames():
    frames = torch.tensor([1.0, 3.0, 3.0]).view(1, 3, 1, 1)
    assert motion_of(frames) == pytest.approx((2 + 0) / (6 + 4))


def video(rate: float, steps: int) -> list[torch.Tensor]:
    """Two frames of two tokens each, the second three times the first: motion 2 / 4."""
    return [each * torch.tensor([1.0, 1.0, 3.0, 3.0]).view(1, 4, 1) for each in growing(rate, steps)]


def test_motion_makes_the_changes_weigh_more():
    """At the typical motion of .5 the weight is 1, and nothing differs. At half of it, it is 2 ** 8, and at
    twice, nearly 0; but a step of it weighs as well: 10 / 6 when it comes in after step 6 of 60."""
    plain = reused(AdaCache(60, 1.0), video(0.005, 60))
    assert reused(MotionAdaCache(60, 1.0, 0.5), video(0.005, 60), 2) == plain
    moving = reused(MotionAdaCache(60, 1.0, 0.25), video(0.005, 60), 2)
    still = reused(MotionAdaCache(60, 1.0, 1.0), video(0.005, 60), 2)
    assert len(moving) < len(still) <= len(plain)


def test_on_a_picture_motion_is_of_no_account():
    for frames in (1, 3):  # four tokens are no three frames
        pilot = MotionAdaCache(60, 1.0, 0.25)
        assert reused(pilot, video(0.005, 60), frames) == reused(AdaCache(60, 1.0), video(0.005, 60))


def test_a_pilot_stands_for_a_plan():
    pilot = GivenSchedule("teacache", knob=0.5, polynomial=ITSELF).plan_for(np.linspace(1, 0, 13))
    assert pilot.steps == 12 and pilot.full is None and pilot.selections == {EVERYTHING}
    assert not pilot.decide(0, tokens(1.0)) and pilot.at(0) == NOTHING
    assert pilot.is_reused(1) and not pilot.is_decided(1)  # it may be
    assert pilot.decide(1, tokens(1.1)) and pilot.at(1) == EVERYTHING
    assert GivenSchedule("adacache").plan_for(np.linspace(1, 0, 13)) is not pilot


def test_a_polynomial_of_degree_4_is_found_again():
    x = np.linspace(0.01, 0.3, 40)
    polynomial, explained = fit_polynomial(x, np.polyval(FLUX_POLYNOMIAL, x))
    assert np.allclose(polynomial, FLUX_POLYNOMIAL, rtol=1e-6) and explained == pytest.approx(1)
