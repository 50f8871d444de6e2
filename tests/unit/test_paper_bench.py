"""The pure functions of the bench of the paper's claims, on shapes whose result can be worked out by hand."""

import numpy as np
import pytest
import torch

import paper_findings
import paper_flops
import paper_report
import paper_tasks
from measured import linear_profile
from paper_claims import Claim, verdict
from paper_measures import (
    agreement,
    changes,
    correlation,
    drift,
    estimate,
    fine_energy,
    held,
    nearest,
    noise_of,
    part_of_run,
    procrustes,
)


def test_the_axis_and_the_plane_hold_what_they_span():
    """Four states: along the axis 3, 2, 1, 0, and off it 0, 1, 1, 0. Variances about their means: 5 and 1."""
    states = np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    shares = held(states @ states.T, explained=0.5)
    assert shares.axis == pytest.approx(5 / 6)
    assert shares.plane == 0.5
    assert shares.three == pytest.approx(5 / 6 + 0.5 / 6)


def test_procrustes_knows_a_turned_mirrored_moved_and_scaled_shape():
    shape = np.random.default_rng(0).normal(size=(10, 2))
    turned = 3 * shape[:, ::-1] @ np.array([[0.6, 0.8], [-0.8, 0.6]]) + [5, 7]
    assert procrustes(shape, turned) == pytest.approx(0.0, abs=1e-12)
    # A line and a line at a right angle within other points: nothing in common but the centre.
    line = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    other = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert procrustes(line, other) == pytest.approx(1.0)


def test_agreement_is_of_each_pair_of_curves():
    rise, fall = np.arange(5.0), -np.arange(5.0)
    assert agreement(np.stack([rise, 2 * rise, fall])) == pytest.approx([1.0, -1.0, -1.0])


def test_correlation_leaves_out_what_was_not_measured():
    found = correlation(np.array([np.nan, 1, 2, 3, 4]), np.array([7, -1, -4, -9, np.nan]))
    assert found.spearman == pytest.approx(-1.0)
    assert found.pearson == pytest.approx(-8 / np.sqrt(2 * (98 / 3)))


def test_change_is_a_share_of_the_newer_output():
    outputs = np.array([[[3.0, 4.0]], [[0.0, 5.0]], [[0.0, 10.0]]])
    assert changes(outputs)[1:] == pytest.approx([np.sqrt(10) / 5, 0.5])


def test_noise_of_a_flow_state_is_found_again():
    x0, noise, sigma = 2.0, -1.0, np.array([1.0, 0.25])
    states = ((1 - sigma) * x0 + sigma * noise)[:, None, None]
    assert noise_of(states, np.full((2, 1, 1), x0), sigma).ravel() == pytest.approx([noise, noise])


def test_drift_is_a_distance_and_its_share():
    plain = np.array([[[3.0, 4.0], [0.0, 10.0]]])
    away, share = drift(plain + np.array([0.0, 1.0]), plain)
    assert away == pytest.approx([1.0])
    assert share == pytest.approx([(1 / 5 + 1 / 10) / 2])


def test_nearest_is_the_distance_to_the_closest():
    assert nearest(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [6.0, 0.0]])) == pytest.approx([5.0])


def test_fine_energy_sees_ripples_and_no_plain_colour():
    plain = np.full((1, 8, 8, 1), 0.5)
    ripples = plain + 0.1 * (-1.0) ** np.arange(8)[None, None, :, None]
    assert fine_energy(plain) == pytest.approx([0.0], abs=1e-12)
    assert fine_energy(ripples) == pytest.approx([0.01 * 64])


def test_half_width_of_an_interval():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(1.96 / np.sqrt(3)))


@pytest.mark.parametrize("gap", (2, 3))
def test_parts_of_a_run_reuse_as_many_steps(gap):
    early, late, spread = (part_of_run(part, gap, 50) for part in ("early", "late", "spread"))
    assert len(early) == len(late) == len(set(spread)) == len(spread)
    assert min(early) == 3 and max(early) <= 25 <= min(late) and max(late) == 48
    assert min(spread) >= 2 and max(spread) <= 48
    assert min(np.diff(spread)) > 1


def test_late_parts_are_early_ones_moved():
    assert part_of_run("early", 2, 50)[:3] == [3, 5, 7]
    assert part_of_run("late", 3, 50)[-4:] == [44, 45, 47, 48]


def test_references_are_measured_before_what_is_compared_with_them():
    done = set()
    for task in paper_tasks.tasks():
        if isinstance(task, paper_tasks.Arm):
            key = paper_tasks.uncached(task.model, task.samples).key
            assert task.key == key or key in done
        assert task.key not in done
        done.add(task.key)


def test_a_verdict_needs_all_models_or_none():
    assert verdict({"image": True, "video": True}) == "confirmed"
    assert verdict({"image": True, "video": False}) == "depends"
    assert verdict({"image": False}) == "not confirmed"
    assert verdict({}) == "not measured"


class Measured:
    """Stands for Results where a finding asks for one thing."""

    models = ("image",)

    def __init__(self, noise=None, away=()):
        self._noise, self._away = noise, away

    def noise(self, model):
        return self._noise

    def single(self, model, is_late):
        return 2, {"away": self._away}

    growth = paper_findings.Results.growth


def test_growth_is_counted_from_the_state_behind_the_reused_step():
    results = Measured(away=[0.0, 0.0, 0.0, 2.0, 3.0, 5.0])
    assert results.growth("image", is_late=False) == 2.5
    assert not paper_findings.early_growth(results, "image").holds
    assert paper_findings.late_growth(results, "image").holds


def test_the_product_rule_fails_where_noise_grows_with_age():
    """Gammas of the linear profile are ratios of ages: 1/3 and 2/3 behind a cache three steps old, where the
    paper has 1 and 1 * 1."""
    profile = linear_profile()
    noise = {
        "gamma": profile.gamma(1, 1), "gamma_1_3": profile.gamma(1, 3), "gamma_2_3": profile.gamma(2, 3)
    }  # fmt: skip
    found = paper_findings.product_rule(Measured(noise), "image")
    assert not found.holds
    assert found.numbers == ("first 0.33 measured, 1.00 by Eq. 7; second 0.67 measured, 1.00 by Eq. 9")
    noise["gamma_2_3"] = 1.1 * noise["gamma"]
    assert paper_findings.product_rule(Measured(noise), "image").holds


def test_a_reading_is_left_out_when_the_verdict_is_another(monkeypatch):
    def holds(results, model):
        return paper_findings.Finding(True, "1")

    claims = [Claim("a", "b", "c", "d", holds, (said, "why")) for said in ("confirmed", "depends")]
    monkeypatch.setattr(paper_report, "CLAIMS", claims)
    assert [claim["reading"] for claim in paper_report.evaluated(Measured())] == ["why", ""]


def test_what_a_reuse_evaluation_still_computes_is_counted():
    """An embedder and a last layer of 3 x 4 and 4 x 3 around two blocks of 4 x 4, for 5 tokens."""

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedder, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)
            self.some_blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))

        def forward(self, x):
            x = self.embedder(x)
            for block in self.some_blocks:
                x = block(x)
            return self.last(x)

    call = lambda model: model(torch.empty(5, 3))  # noqa: E731
    row = paper_flops.counted(paper_flops.Model("", "", "", 10, 2, (5,), (None, None), Tiny, call))
    outside, blocks = 2 * 5 * 2 * 3 * 4 / 1e12, 2 * 5 * 2 * 4 * 4 / 1e12
    assert (row["full"], row["reuse"]) == pytest.approx((outside + blocks, outside))
    assert row["counted"] == pytest.approx(20 * (outside + blocks))
    assert row["settings"][0]["counted"] == pytest.approx(20 * outside + 10 * blocks)
    assert row["settings"][0]["of_steps"] == 2.0


def test_counted_operations_of_the_papers_models_are_the_papers():
    by_name = {row["name"]: row for row in paper_flops.read()}
    for name, within in {"DiT-XL/2": 2e-4, "Latte": 2e-4, "Open-Sora 1.2": 2e-4}.items():
        assert by_name[name]["counted"] == pytest.approx(by_name[name]["printed"], rel=within)
        for setting in by_name[name]["settings"]:
            assert setting["ratio"] == pytest.approx(setting["of_steps"], rel=1e-3)
