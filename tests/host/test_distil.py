"""The mathematics of demo/distil.py, on velocities whose answers are known."""

import importlib
import sys

import numpy as np
import pytest
import torch

from locations import ROOT


@pytest.fixture(scope="module")
def distil():
    path, arguments = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(ROOT / "demo"))
    try:
        yield importlib.import_module("distil")
    finally:
        sys.path[:], sys.argv[:] = path, arguments


def test_the_states_of_8_steps_lie_on_the_recorded_grid(distil):
    grid = distil.host_sigmas(16)
    assert torch.equal(distil.host_sigmas(8), grid[::2])
    assert grid[0] == 1 and grid[-1] == 0


def test_the_second_order_rule_is_closer_than_euler_on_a_curved_path(distil):
    # dx / dsigma = x has the solution x(0) = x(1) / e
    x = torch.ones(1, 1, 1, 1)
    ends = [
        solver(lambda x, sigma: x, x, distil.host_sigmas(16))[-1].item()
        for solver in (distil.euler, distil.second_order)
    ]
    euler, second_order = (abs(end - np.exp(-1)) for end in ends)
    assert second_order < euler / 4


def test_guidance_leads_away_from_the_empty_prompt(distil, monkeypatch):
    def forward(net, model, x, sigma, words):
        return torch.tensor([3.0 if each else 1.0 for each in words]).view(-1, 1)

    monkeypatch.setattr(distil.base, "forward", forward)
    velocity = distil.guided(None, [("fox", "blue"), ("cat", "red")])
    assert velocity(torch.zeros(2, 1), torch.tensor(1.0)).tolist() == [[6.0], [6.0]]  # 1 + 2.5 (3 - 1)


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_loss_is_the_students_error_on_a_straight_trajectory(distil, error, monkeypatch):
    noise, sample = torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    sigmas = distil.host_sigmas(16).view(-1, 1, 1, 1, 1)
    states = sigmas * noise + (1 - sigmas) * sample  # (17, 2, 16, 16, 16)
    monkeypatch.setattr(distil.base, "forward", lambda *arguments: noise - sample + error)
    words = [("fox", "blue"), ("cat", "red")]
    loss = distil.chord_loss(torch.nn.Linear(1, 1), states, words, np.random.default_rng(1))
    assert loss.item() == pytest.approx(error**2, abs=1e-6)
