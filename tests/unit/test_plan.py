import itertools
import time

import numpy as np
import pytest

from comfyui_omnicache.omnicache.plan import Budget, Constraints, Plan, solve


def by_brute_force(steps, reused, constraints, cost):
    """Least cost over every mask that meets the constraints, by trying all."""
    may_be_full, may_reuse = constraints.allowed(steps)
    best = np.inf
    for chosen in itertools.combinations(np.flatnonzero(may_reuse), reused):
        mask = np.zeros(steps, dtype=bool)
        mask[list(chosen)] = True
        if not may_be_full[~mask].all():
            continue
        runs = [len(list(group)) for is_reused, group in itertools.groupby(mask) if is_reused]
        is_met = max(runs) <= constraints.max_consecutive
        total = cost_of(Plan.of(mask.tolist()), cost) if is_met else np.inf
        if is_met:
            best = min(best, total)
    return best


def cost_of(plan, cost):
    full = [step for step, is_reused in enumerate(plan.reused) if not is_reused]
    total = 0.0
    for step, is_reused in enumerate(plan.reused):
        if is_reused:
            before = [each for each in full if each < step]
            after = [each for each in full if each > step] or [plan.steps]
            total += cost(step, before[-1], before[-2], after[0])
    return total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("longest", [1, 2, 3])
def test_the_plan_is_the_best_of_all_plans(seed, longest):
    table = np.random.default_rng(seed).random((12, 12, 12, 13))
    cost = lambda *steps: float(table[steps])  # noqa: E731
    constraints = Constraints(max_consecutive=longest, protect_last=seed % 2)
    for reused in (1, 3, 4):
        plan = solve(12, reused, constraints, cost)
        assert sum(plan.reused) == reused
        assert cost_of(plan, cost) == pytest.approx(by_brute_force(12, reused, constraints, cost))


def test_no_run_is_longer_than_allowed_and_the_ends_are_full():
    plan = solve(50, 30, Constraints(protect_last=1), lambda step, *_: float(step % 7))
    text = "".join("r" if reused else "F" for reused in plan.reused)
    assert plan.full == 20
    assert "rrr" not in text and text.startswith("FF") and text.endswith("F")


def test_overrides_are_met_and_the_budget_is_kept_around_them():
    constraints = Constraints(full=frozenset({5, 9}), reuse=frozenset({3, 12}))
    plan = solve(20, 8, constraints, lambda *_: 0.0)
    assert not plan.reused[5] and not plan.reused[9]
    assert plan.reused[3] and plan.reused[12]
    assert sum(plan.reused) == 8


def test_the_last_step_may_be_reused_but_does_not_make_runs_shorter():
    """18 of 30: the first two and every third are full. Only if the last one counted as room would runs of
    two leave a choice."""
    free, kept = (Constraints(protect_last=last).with_longest_run(30, 18) for last in (0, 1))
    assert free.max_consecutive == kept.max_consecutive == 3
    plans = [solve(30, 18, each, lambda step, *_: float(step < 29)) for each in (free, kept)]
    assert [plan.reused[-1] for plan in plans] == [True, False]


def test_runs_are_as_long_as_those_that_are_forced():
    chosen = Constraints(reuse=frozenset({5, 9, 10, 11})).with_longest_run(24, 6)
    assert chosen.max_consecutive == 3


@pytest.mark.parametrize(
    ("steps", "reused", "longest"),
    # Of 24 steps 21 are free; runs of 1 reuse 11 of them at most, runs of 2 14, in one single way each.
    [
        (24, 10, 1),
        (24, 11, 2),
        (24, 13, 2),
        (24, 14, 3),
        (24, 15, 3),
        (24, 16, 4),
        (50, 30, 2),
        (50, 35, 3),
        (50, 36, 4),
    ],
)
def test_runs_get_longer_where_shorter_ones_leave_no_choice(steps, reused, longest):
    chosen = Constraints().with_longest_run(steps, reused)
    assert chosen.max_consecutive == longest
    assert Constraints(2).with_longest_run(steps, reused) == Constraints(2)
    plan = solve(steps, reused, Constraints(), lambda step, last, *_: (step - last) ** 2)
    runs = "".join("r" if step else "F" for step in plan.reused).split("F")
    assert sum(plan.reused) == reused and max(map(len, runs)) <= longest


def test_as_many_can_be_reused_as_a_plan_has():
    for longest in (1, 2, 3, 4):
        constraints = Constraints(longest, protect_first=3, full=frozenset({7}))
        most = constraints.most_reused(20)
        assert sum(solve(20, most, constraints, lambda *steps: 0.0).reused) == most
        with pytest.raises(ValueError, match=f"up to {most} of 20"):
            solve(20, most + 1, constraints, lambda *steps: 0.0)


def test_nothing_reused_is_a_plan_for_any_number_of_steps():
    assert solve(3, 0, Constraints(), lambda *steps: 0.0).reused == (False, False, False)


@pytest.mark.parametrize(
    ("steps", "reused", "words"),
    [(4, 2, "at least 8"), (10, 9, "possible: up to 7 of 10"), (50, 40, "max_consecutive 4")],
)
def test_a_budget_that_cannot_be_met_is_refused_with_what_is_possible(steps, reused, words):
    with pytest.raises(ValueError, match=words):
        solve(steps, reused, Constraints(), lambda *steps: 0.0)


@pytest.mark.parametrize(
    ("full", "reuse", "words"),
    [({60}, set(), "does not exist"), ({4}, {4}, "at once"), (set(), {1}, "cannot be reused")],
)
def test_contradicting_overrides_are_refused(full, reuse, words):
    with pytest.raises(ValueError, match=words):
        solve(50, 20, Constraints(full=frozenset(full), reuse=frozenset(reuse)), lambda *steps: 0.0)


def test_budgets_of_each_kind_count_the_same_steps():
    assert Budget("reuse ratio", 0.6).reused_steps(50, 0.0) == 30
    assert Budget("full steps", 20).reused_steps(50, 0.0) == 30
    assert Budget("speed-up", 2.5).reused_steps(50, 0.0) == 30
    assert Budget("speed-up", 2.5).reused_steps(50, 0.1) == 34  # 50 / (16 + 34 * 0.1) = 2.58


def test_where_nothing_can_be_reused_the_message_says_so():
    with pytest.raises(ValueError, match="possible: none"):
        solve(10, 3, Constraints(protect_first=10), lambda *steps: 0.0)


@pytest.mark.parametrize(
    ("kind", "value"), [("reuse ratio", 1.5), ("speed-up", 0.5), ("full steps", 0), ("full steps", 24.5)]
)
def test_budgets_out_of_range_are_refused(kind, value):
    with pytest.raises(ValueError, match="budget"):
        Budget(kind, value)


def test_a_speed_up_by_steps_that_save_nothing_is_refused():
    with pytest.raises(ValueError, match="a speed-up of 1.5 cannot be had.* 'reuse ratio'"):
        Budget("speed-up", 1.5).reused_steps(20, 1.0)


def test_the_speedup_counts_the_time_of_reuse():
    plan = solve(50, 25, Constraints(), lambda *steps: 0.0)
    assert plan.speedup(0.0) == 2.0
    assert plan.speedup(0.04) == pytest.approx(50 / 26)


def test_250_steps_are_planned_quickly():
    started = time.perf_counter()
    solve(250, 150, Constraints(), lambda step, *_: float(step % 5))
    assert time.perf_counter() - started < 0.5  # about 0.05 s alone on a core; shared machines are slower
