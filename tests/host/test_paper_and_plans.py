"""The benches of the paper's claims and of repay sample through the host, on as little as will do."""

import math

import repay

import paper_arms
from paper_tasks import Trajectories


def test_a_trajectory_of_the_few_step_model_is_measured():
    found = paper_arms.measure_trajectories(Trajectories("few-step", "prompts", 2))
    assert len(found["sigmas"]) == 17 and len(found["three"]) == len(found["turning"]) == 2
    assert min(found["three"]) > 0.99  # three axes hold nearly all of it
    assert len(found["velocity_change"]) == 15 and min(found["velocity_change"]) > 0


def test_a_given_plan_is_followed(demo):
    given = paper_arms.GivenPlan(tuple(step in (3, 5) for step in range(10)))
    assert given.plan_for(demo.sigmas(10)).reused == given.reused and math.isclose(given.reuse_cost(), 0.0)


def test_the_default_is_compared_with_what_it_is_made_of(demo, monkeypatch):
    monkeypatch.setattr(repay, "SAMPLES", {"image": 1})
    found = repay.Setting(demo, "euler", "simple", 10).measure(4)
    assert list(found) == [*repay.ARMS, *repay.CONTROLS]
    assert all(10 < value < 100 for value in found.values()) and len(set(found.values())) > 6
    assert repay.budgets_of(8) == [2, 3] and repay.budgets_of(20) == [7, 10, 12, 14]
