import numpy as np
import torch

from comfyui_omnicache.omnicache.drift import DriftGuard
from comfyui_omnicache.omnicache.outlook import Outlook
from measured import linear_profile


def guard(limit: float = 2.0) -> DriftGuard:
    """Expects a |q| of 0.1 times the output for each step of age."""
    return DriftGuard(Outlook(linear_profile(), np.linspace(1, 0, 11)), limit)


def measure(watched: DriftGuard, *noises: tuple[int, int, float]) -> None:
    """(step, cached step, |q| over |output|) of calls one after the other."""
    output = torch.ones(2, 100)
    for step, cached_step, noise in noises:
        watched.measure(step, cached_step, noise * output, output)


def test_noise_is_compared_with_what_was_calibrated_for_its_age():
    watched = guard()
    measure(watched, (2, 1, 0.15), (4, 2, 0.3), (6, 5, 0.15))  # 0.1, 0.2 and 0.1 are expected
    assert not watched.has_drifted() and np.isclose(watched.largest_ratio, 1.5)


def test_three_steps_make_a_drift_and_one_does_not():
    watched = guard()
    measure(watched, (1, 0, 0.3), (2, 1, 0.1))
    assert not watched.has_drifted()
    measure(watched, (3, 2, 0.3))
    assert watched.has_drifted() and np.isclose(watched.largest_ratio, 3.0)
    measure(watched, (4, 3, 0.1))
    assert not watched.has_drifted() and np.isclose(watched.largest_ratio, 3.0)


def test_calls_of_one_step_count_together():
    """The energies of the rows are pooled, as in the calibration: sqrt((0.09 + 0.01) / 2) is 0.224."""
    watched = guard()
    for step in (3, 4, 5):
        measure(watched, (step, step - 1, 0.3), (step, step - 1, 0.1))
    assert watched.has_drifted() and np.isclose(watched.largest_ratio, np.sqrt(5))


def test_what_was_not_calibrated_or_is_not_finite_is_no_drift():
    watched = guard(limit=0.5)
    measure(watched, (0, -1, 9.0))  # no older cache was there in the calibration
    measure(watched, *((step, step - 1, np.nan) for step in (3, 4, 5)))
    assert not watched.has_drifted() and watched.largest_ratio == 0.0
