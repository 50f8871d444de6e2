"""Plans that the plot's own solver (js/plan.js) must come to as well; tests/js/plan.test.js reads the same
file. If plans are meant to change: delete it, run this test, and commit what it writes."""

import json
import random
from pathlib import Path

import pytest

from comfyui_omnicache.nodes.plot import payload, table
from comfyui_omnicache.omnicache.plan import Budget, Constraints, Plan, StepCost, solve
from comfyui_omnicache.omnicache.profile import Profile
from comfyui_omnicache.omnicache.schedule import Schedule, parse_overrides

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "plan_vectors.json"
PROFILE = ROOT / "schedules" / "omnicache_demo_image_fewstep.json"
COSTS = ("reach", "reach", "curvature", "even")
BUDGETS = {
    "reuse ratio": [0, 0.03125, 0.2, 0.3, 0.4, 0.46875, 0.5, 0.6, 1.5],  # of 16 steps: halves round to even
    "speed-up": [1, 1.2, 1.5, 1.9, 2.4, 30, 0.5],
    "full steps": [16, 12, 9, 8, 7, 20, 8.5],
}
FIRST_SETTINGS = {
    "saved_profile": "", "budget_kind": "reuse ratio", "budget": 0.4, "cost": "reach",
    "max_consecutive": 0, "protect_first": 2, "protect_last": 0, "overrides": "",
}  # fmt: skip
TEXTS = [
    "", "5 full", "10-12 reuse", " 5 full,10 - 12  reuse ,", "7-3 full", "5 full, 5 reuse", "5", "x",
    "5 FULL", "2-4 reuse, 6 full, 9 reuse", "-1 full", "12345 full", "5 full 6 full",
]  # fmt: skip


def arithmetic_cost(modulus: int) -> StepCost:
    """A cost that both languages compute alike; a small modulus makes many plans equally good."""
    numbers = (7919, 104729, 611953, 15485863)
    return lambda *steps: (sum(a * b for a, b in zip(steps, numbers, strict=True)) % modulus) / 7


def solved(steps: int, reused: int, constraints: Constraints, cost: StepCost) -> dict:
    try:
        plan = solve(steps, reused, constraints, cost)
    except ValueError as refusal:
        return {"refusal": str(refusal)}
    return {"reused": "".join("r" if step else "F" for step in plan.reused)}


def solve_case(seed: int) -> dict:
    draw = random.Random(seed)
    steps = draw.choice([4, 8, 12, 20, 30, 50])
    wanted = {
        "steps": steps,
        "reused": draw.randrange(int(steps * 0.75)),
        "max_consecutive": draw.choice([0, 0, 0, 1, 2, 3, 4]),
        "protect_first": draw.choice([2, 2, 4]),
        "protect_last": draw.choice([0, 1, 1, 3, 60]) if seed % 9 == 0 else seed % 2,
        "modulus": draw.choice([3, 1009]),
        "overrides": ", ".join(
            f"{draw.randrange(0 if seed % 7 == 0 else 2, steps)} {draw.choice(['full', 'reuse'])}"
            for _ in range(draw.randrange(4))
        ),
    }
    full, reuse = parse_overrides(wanted["overrides"])
    constraints = Constraints(
        wanted["max_consecutive"], wanted["protect_first"], wanted["protect_last"], full, reuse
    )
    expected = solved(steps, wanted["reused"], constraints, arithmetic_cost(wanted["modulus"]))
    return {**wanted, "expected": expected}


def payload_case(seed: int) -> dict:
    """What the node sends for its first inputs, other inputs, and what it sends for those."""
    draw = random.Random(seed)
    kind, budgets = draw.choice(list(BUDGETS.items()))
    settings = {
        "saved_profile": "",
        "budget_kind": kind,
        "budget": draw.choice(budgets),
        "cost": draw.choice(COSTS),
        "max_consecutive": draw.choice([0, 0, 1, 2, 3, 4]),
        "protect_first": draw.choice([2, 2, 3]),
        "protect_last": draw.choice([0, 0, 1, 2]),
        "overrides": draw.choice(["", "", "4 full", "3 reuse, 7-8 full", "12 reuse"]),
    }
    try:
        sent = node_sends(settings)
        expected = {key: sent[key] for key in ("reused", "speedup", "error")}
        assert sent["settings"] == settings
    except ValueError as refusal:
        expected = {"refusal": str(refusal)}
    return {"settings": settings, "expected": expected}


def node_sends(settings: dict) -> dict:
    profile = Profile.from_json(PROFILE.read_text(encoding="utf-8"), PROFILE.name)
    given = dict(settings)
    overrides, budget = given.pop("overrides"), Budget(given.pop("budget_kind"), given.pop("budget"))
    cost, saved = given.pop("cost"), given.pop("saved_profile")
    full, reuse = parse_overrides(overrides)
    schedule = Schedule(budget, cost, Constraints(**given, full=full, reuse=reuse), profile)
    plan = schedule.plan_for(profile.schedule)
    return payload(profile, schedule, plan, overrides, saved_profile=saved)["omnicache_plot"][0]


def overrides_case(text: str) -> dict:
    try:
        full, reuse = parse_overrides(text)
    except ValueError as refusal:
        return {"text": text, "refusal": str(refusal)}
    return {"text": text, "full": sorted(full), "reuse": sorted(reuse)}


def vectors() -> dict:
    return {
        "solve": [solve_case(seed) for seed in range(60)],
        "payload": node_sends(FIRST_SETTINGS),
        "settings": [payload_case(seed) for seed in range(80)],
        "overrides": [overrides_case(text) for text in TEXTS],
    }


def test_the_plans_are_those_of_the_vectors():
    have = json.loads(json.dumps(vectors()))
    if not FILE.exists():
        lists = {key: ",\n".join(map(json.dumps, have[key])) for key in have if key != "payload"}
        lines = [f"{json.dumps(key)}: [\n{lists[key]}\n]" for key in lists]
        lines.append(f'"payload": {json.dumps(have["payload"])}')
        FILE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
        pytest.fail(f"{FILE.name} was missing and is written anew")
    expected = json.loads(FILE.read_text(encoding="utf-8"))
    assert have == expected
    refused = [case for case in expected["solve"] if "refusal" in case["expected"]]
    assert 10 < len(refused) < 40
    assert 5 < sum("refusal" in case["expected"] for case in expected["settings"]) < 40


def test_a_table_holds_the_costs_by_distance_and_gap():
    costs = table(lambda step, last, before, _: 100.0 * step + 10 * last + before, 9, 2)
    assert (costs["distances"], costs["gaps"], len(costs["values"])) == (2, 3, 9 * 2 * 3)
    assert costs["values"][(7 * 2 + 1) * 3 + 2] == 752.0  # step 7, cached 5, source 2
    assert costs["values"][:12] == [0.0] * 12  # nothing is reused before step 2
    by_distance = table(lambda step, last, *_: float(step - last), 9, 2)
    assert by_distance["gaps"] == 1 and by_distance["values"][-2:] == [1.0, 2.0]
    by_step = table(lambda step, *_: float(step), 9, 2)
    assert (by_step["distances"], by_step["gaps"]) == (1, 1) and by_step["values"][-2:] == [7.0, 8.0]


def test_the_costs_of_a_plan_are_counted_from_the_computed_steps_around_the_reused_ones():
    plan = Plan.of([False, False, True, True, False, True])
    costs = plan.costs(lambda step, last, before, after: 1000.0 * step + 100 * last + 10 * before + after)
    assert costs == [2104, 3104, 5416]
