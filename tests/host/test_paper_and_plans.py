"""The benches of the paper's claims and of plans sample through the host, on as little as will do."""

import math

import paper_arms
import plans
from paper_tasks import Trajectories


def test_a_trajectory_of_the_few_step_model_is_measured():
    found = paper_arms.measure_trajectories(Trajectories("few-step", "prompts", 2))
    assert len(found["sigmas"]) == 17 and len(found["three"]) == len(found["turning"]) == 2
    assert min(found["three"]) > 0.99  # three axes hold nearly all of it
    assert len(found["velocity_change"]) == 15 and min(found["velocity_change"]) > 0


def test_plans_are_compared_by_what_they_were_chosen_by(demo, monkeypatch):
    monkeypatch.setattr(plans, "SAMPLES", {"image": 1})
    monkeypatch.setattr(plans, "BUDGETS", (0.4,))
    (found,) = plans.Study(demo).compare("euler", 10).values()
    assert len(found) == len(plans.OWN) + 5
    assert all(value is not None and 10 < value < 100 for value in found.values())
    given = paper_arms.GivenPlan(tuple(step in (3, 5) for step in range(10)))
    assert given.plan_for(demo.sigmas(10)).reused == given.reused and math.isclose(given.reuse_cost(), 0.0)
