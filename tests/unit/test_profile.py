import dataclasses
import json

import numpy as np
import pytest

from comfyui_omnicache.omnicache.profile import Profile
from measured import linear_profile


def test_means_and_spreads_divide_by_the_trajectories():
    profile = linear_profile()
    assert np.allclose(profile.turning_mean()[1:], 0.2)
    assert np.allclose(profile.turning_spread()[1:], np.sqrt(0.1 / 2 - 0.2**2))


def test_gamma_is_the_ratio_of_the_ages_where_noise_grows_with_age():
    profile = linear_profile()
    assert np.allclose(profile.gamma(1, 2)[4:], 0.5)
    assert np.allclose(profile.gamma(2, 1)[4:], 2.0)
    assert np.isnan(profile.gamma(1, 1)[0])
    assert np.allclose(profile.correlation(2, 3)[5:], 1.0)


def test_relative_noise_and_the_cost_of_reuse_are_plain_ratios():
    profile = linear_profile()
    assert np.allclose(profile.relative_noise(2)[2:], 0.2)
    assert profile.reuse_cost() == pytest.approx(0.02)


def test_json_and_back_gives_the_same_profile():
    profile = linear_profile()
    again = Profile.from_json(profile.to_json(), "again")
    assert again.to_json() == profile.to_json()
    assert again.settings == profile.settings and again.model == profile.model


def test_merging_adds_and_does_not_depend_on_the_order():
    one, two = (
        linear_profile(),
        dataclasses.replace(linear_profile(), trajectories=3, turning=np.full(10, 0.9)),
    )
    assert one.merged_with(two).to_json() == two.merged_with(one).to_json()
    assert one.merged_with(two).trajectories == 5
    assert np.allclose(one.merged_with(two).turning_mean()[1:], (0.4 + 0.9) / 5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            dataclasses.replace(
                linear_profile(), settings=dataclasses.replace(linear_profile().settings, cfg=7.0)
            ),
            "profile: it was measured with cfg 3.0, and this calibration has 7.0",
        ),
        (
            dataclasses.replace(
                linear_profile(), model=dataclasses.replace(linear_profile().model, family="wan")
            ),
            "family sd3, and this calibration has wan",
        ),
        (dataclasses.replace(linear_profile(), sigmas=linear_profile().sigmas * 0.9), "sigmas"),
        (linear_profile(steps=12), "steps 10, and this calibration has 12"),
    ],
)
def test_profiles_of_other_settings_do_not_merge(other, words):
    with pytest.raises(ValueError, match=words):
        linear_profile().merged_with(other)


def damaged(change) -> str:
    document = json.loads(linear_profile().to_json())
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not an OmniCache profile"),
        (damaged(lambda d: d.update(format="other")), "not an OmniCache profile"),
        (damaged(lambda d: d.update(version=9)), "version is 9"),
        (damaged(lambda d: d["steps"].pop("noise")), "'noise'"),
        (damaged(lambda d: d["steps"]["turning"].pop()), "'turning' has the shape"),
        (damaged(lambda d: d["steps"]["output"].__setitem__(3, "x")), "'output' is not a table"),
        (damaged(lambda d: d["steps"]["sigmas"].__setitem__(0, 0.1)), "do not fall"),
        (damaged(lambda d: d.update(trajectories=0)), "'trajectories' is 0"),
        (damaged(lambda d: d["settings"].update(latent_shape=[0])), "'latent_shape'"),
        (linear_profile().to_json().replace("0.02", "NaN"), "not finite"),
        (" " * (5 * 1024 * 1024), "more than"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name_and_what_is_wrong(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        Profile.from_json(text, "my profile")
    assert "'my profile'" in str(caught.value)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError):
        linear_profile().noise[0] = 1.0
