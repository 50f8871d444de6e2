"""The quality bench's arms on the image demo model: what is counted is what was computed."""

import numpy as np
import pytest

import lemica_errors
import lemica_table
import quality_arms
from quality_arms import Bench, demo_model, prompts_of
from quality_tasks import Task


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(quality_arms, "FOLDER", tmp_path)
    return Bench()


def sampled(bench, method, reuse, sampler="euler"):
    task = Task("image", sampler, 10, reuse, method, 1, 2)
    demo = demo_model("image", False)  # in float32, so that all can be compared
    arm = bench._arm(task, demo)
    return arm, *bench._sample(task, demo, arm, prompts_of(task))


@pytest.mark.parametrize(
    ("method", "reuse", "steps", "full", "asked"),
    [
        ("uncached", 0.0, 10, 20, 20),
        ("fewer-steps", 0.5, 5, 10, 10),
        ("omnicache", 0.5, 10, 10, 20),
        ("omnicache-paper", 0.5, 10, 10, 20),
        ("even", 0.7, 10, 6, 20),
        ("fora", 0.5, 10, 12, 20),  # every second step counted from the end, and the first
    ],
)
def test_evaluations_are_counted_for_one_row_with_and_one_without_the_prompt(
    bench, method, reuse, steps, full, asked
):
    arm, pictures, seconds, counts = sampled(bench, method, reuse)
    assert (arm.steps, counts.full, counts.asked) == (steps, full, asked)
    assert pictures.shape == (2, 1, 64, 64, 3) and 0 <= pictures.min() < pictures.max() <= 1
    assert seconds > 0


def test_each_sample_has_its_own_prompt(bench):
    """Sampled alone, each prompt gives the picture that it gave among the others."""
    demo, prompts = demo_model("image", False), ["fox on blue", "car on yellow"]
    together = demo.decode(demo.latents(demo.model, "euler", 8, prompts))
    swapped = demo.decode(demo.latents(demo.model, "euler", 8, prompts[:1] * 2))
    assert np.allclose(together[0], swapped[0], atol=1e-3)
    assert not np.allclose(together[1], swapped[1], atol=0.1)


def test_lazycaches_threshold_meets_the_budget_by_the_blocks_that_ran(bench):
    arm, _, _, counts = sampled(bench, "lazycache", 0.3)
    assert 0 < arm.setting < 3
    # Not under the budget's 7 of 10 steps where it was sought; other samples may differ by a step.
    assert 12 <= counts.full < 20


def test_lemica_is_measured_by_the_end_of_sampling_from_each_state_on(tmp_path, monkeypatch):
    """Nothing reused from a state on gives the uncached end; a longer run of reused steps errs more."""
    demo, prompts, states = demo_model("image", False), ["fox on blue"], []
    plain = demo.latents(
        demo.model, "euler", 10, prompts, callback=lambda step, x0, x, total: states.append(x.clone())
    )
    again = demo.continued(demo.model, "euler", demo.sigmas(10)[4:], states[4], prompts)
    assert np.allclose(again, plain, atol=1e-4)

    monkeypatch.setattr(lemica_table, "FOLDER", tmp_path)
    monkeypatch.setattr(lemica_table, "LONGEST", 3)
    lemica_errors.measure_with(demo, 10, 1)
    assert lemica_table.is_complete("image", 10)
    errors = lemica_table.table("image", 10)
    assert all(errors[i, i + 3] > errors[i, i + 2] > errors[i, i + 1] == 0 for i in range(7))
