"""What the study of guidance does with lanes, in numbers a reader can check."""

from types import SimpleNamespace

import pytest
import torch

import studies_lanes
from comfyui_omnicache.omnicache.plan import Plan
from studies_cases import CFG


def call(first_side):
    x = torch.zeros(2, 1, 4, 4)
    return SimpleNamespace(x=x, rows=((object(), first_side, None), (object(), 1 - first_side, None)))


@pytest.mark.parametrize("first_side", [0, 1])
def test_guided_noise_is_that_of_the_lanes_put_together_in_either_order(first_side):
    rows = torch.randn(2, 1, 4, 4)
    positive, negative = (rows[:1], rows[1:]) if first_side == 0 else (rows[1:], rows[:1])
    products = studies_lanes.PartProducts(call(first_side), "guided")
    spectrum = products.spectrum(rows)
    noise = negative + CFG * (positive - negative)
    assert products.between(spectrum, spectrum).sum().item() == pytest.approx(
        (noise**2).sum().item(), rel=1e-5
    )


def test_the_guided_output_is_continued_by_the_weights_and_only_at_reused_steps():
    plan = Plan.of([False, False, True, True])
    asked = []

    def weights(step, known):
        asked.append((step, known))
        return (2.0, -1.0)  # a straight line

    after_guidance = studies_lanes.forecast_output(plan, 1, weights)
    x, sigma = torch.zeros(1, 1, 1, 1), torch.tensor([0.5])
    given = [torch.full((1, 1, 1, 1), -0.5 * output) for output in (1.0, 3.0, 9.0, 9.0)]
    found = [after_guidance({"input": x, "sigma": sigma, "denoised": each}).item() for each in given]
    assert found == [-0.5, -1.5, -2.5, -2.5]  # outputs 1, 3 and then 2 * 3 - 1 = 5
    assert asked == [(2, (1, 0)), (3, (1, 0))]
