"""The studies around their sampling: which cases there are, and what the report makes of rows."""

from dataclasses import asdict, replace

import numpy as np
import pytest

import studies_cases
import studies_report
from comfyui_omnicache.omnicache.plan import Budget, Constraints
from comfyui_omnicache.omnicache.schedule import Schedule
from studies_cases import Calibration, Case


def row(case, psnr, plan="ffrf"):
    measured = {"seconds": 2.0, "cache_bytes": 3_000_000, "full": 4, "asked": 8, "limited_gammas": 0}
    return {"key": case.key, **asdict(case), "psnr": psnr, "plan": plan, **measured}


def test_each_case_is_measured_once_and_has_its_own_key():
    every = studies_cases.cases(studies_cases.MODELS, studies_cases.STUDIES)
    assert len({case.key for case in every}) == len(every) > 400


def test_a_key_names_what_differs_from_the_defaults():
    assert Case("image").key == "image {}"
    assert Case("image", order=1, profile=Calibration(steps=20)).key.startswith(
        'image {"order": 1, "profile": {'
    )


def test_measured_and_calibrated_prompts_are_others():
    for model, prompts in studies_cases.PROMPTS.items():
        assert not set(prompts) & set(studies_cases.CALIBRATION_PROMPTS[model])


def test_the_same_plan_gives_the_same_outcome_unless_the_profile_corrects_too():
    forecast = Case("image", profile=Calibration(prompt=1), protect_last=3)
    aware = replace(forecast, mode="age-aware")
    assert forecast.outcome("ffrf") == Case("image").outcome("ffrf") != Case("image").outcome("frff")
    assert aware.outcome("ffrf") != Case("image", mode="age-aware").outcome("ffrf")
    assert aware.outcome("ffrf") == replace(aware, protect_last=1).outcome("ffrf")


def test_the_report_marks_the_best_and_says_where_the_plan_is_the_default_s():
    case = Case("image")
    rows = {
        each.key: row(each, psnr, plan)
        for each, psnr, plan in (
            (case, [50.0, 52.0], "ffrf"),
            (replace(case, max_consecutive=3), [50.0, 52.0], "ffrf"),
            (replace(case, max_consecutive=4), [40.0, 41.0], "frrf"),
        )
    }
    text = "\n".join(studies_report.constraints(rows))
    assert "| max_consecutive 0 | **51.0** |" in text
    assert "| max_consecutive 3 | = |" in text and "| max_consecutive 4 | 40.5 |" in text


def test_the_standard_error_is_of_the_differences_between_the_same_prompts():
    case = Case("image")
    rows = {
        case.key: row(case, [50.0, 60.0]),
        replace(case, order=1).key: row(replace(case, order=1), [48.0, 60.0]),
    }
    # Differences -2 and 0: standard deviation 1.414, of two 1.0.
    assert "1.0 dB (image)" in " ".join(studies_report.sure(rows))


def test_a_report_of_nothing_is_tables_of_dashes():
    assert "| - |" in "\n".join(studies_report.document({}))


@pytest.mark.parametrize("constraints", [(2, 2, 1), (3, 2, 1), (2, 4, 2), (1, 2, 1), (6, 3, 3)])
def test_the_most_that_can_be_reused_is_what_a_plan_can_be_found_for(constraints):
    longest, first, last = constraints
    for steps in (20, 25, 50):
        case = Case("image", steps=steps, max_consecutive=longest, protect_first=first, protect_last=last)
        most = studies_cases.most_reused(case)

        def plan(reused, steps=steps):
            budget = Budget("full steps", steps - reused)
            return Schedule(budget, "even", Constraints(*constraints)).plan_for(np.linspace(1, 0, steps + 1))

        assert sum(plan(most).reused) == most
        with pytest.raises(ValueError, match="cannot be reused"):
            plan(most + 1)
