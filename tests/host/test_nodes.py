"""The nodes as the host sees them, and calibration on real classes."""

import asyncio
import json
import logging

import folder_paths
import numpy as np
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from conftest_paths import ROOT
from test_passes import MODEL_NODES, Conds

import nodes
from cached_runs import run
from comfyui_omnicache.nodes import library
from comfyui_omnicache.nodes.curvature_scheduler import CurvatureScheduler
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.rival_schedule import RivalSchedule
from comfyui_omnicache.nodes.trajectory_calibrator import TrajectoryCalibrator
from tiny_models import MODELS, build, conditioning, count_leaf_calls, sample

IDS = [
    "OmniCacheAuto", "TrajectoryCalibrator", "CurvatureScheduler", "RivalSchedule", "NoiseCorrector",
    "OmniCacheModelPatch", "OmniCacheReport", "OmniCacheDiffusersLoader", "OmniCacheClassLabel",
    "OmniCacheDiffusersVAELoader", "OmniCacheImageToVideo", "OmniCacheFramesToBatch",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path):
    """Keeps saved profiles out of the host's models folder."""
    paths = folder_paths.folder_names_and_paths.get("omnicache")
    folder_paths.folder_names_and_paths["omnicache"] = ([str(tmp_path), str(ROOT / "schedules")], {".json"})
    yield tmp_path
    if paths is not None:
        folder_paths.folder_names_and_paths["omnicache"] = paths


def calibrate(
    model, family, steps=10, samples=1, save_as="", profile=None, sampler="euler", positive=None,
    negative=None, latent=None, seed=1, denoise=1.0,
):  # fmt: skip
    latent = torch.full((1, *MODELS[family].shape), 0.1 if seed == 3 else 0.0) if latent is None else latent
    with torch.inference_mode():
        return TrajectoryCalibrator.execute(
            model, positive or conditioning(family, 1), negative or conditioning(family, 2),
            {"samples": latent}, seed, steps, 3.0, sampler, "simple", denoise, samples, save_as, profile,
        )  # fmt: skip


def test_the_hosts_own_loader_takes_the_pack(caplog):
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(nodes.load_custom_node(str(ROOT)))
    assert [key for key in IDS if key in nodes.NODE_CLASS_MAPPINGS] == IDS


@pytest.mark.parametrize("node_id", IDS)
def test_every_input_and_output_has_a_tooltip(node_id):
    asyncio.run(nodes.load_custom_node(str(ROOT)))
    info = nodes.NODE_CLASS_MAPPINGS[node_id].GET_NODE_INFO_V1()
    for inputs in info["input"].values():
        for name, specification in inputs.items():
            if name not in info["input"].get("hidden", {}):
                assert len(specification[1]["tooltip"]) > 20, name
    assert all(len(tip) > 20 for tip in info["output_tooltips"])
    assert len(info["description"]) > 60


SNAPSHOT = ROOT / "tests" / "host" / "object_info.json"
MENUS_OF_THE_HOST = ("sampler_name", "scheduler", "saved_profile", "model_folder")


def object_info(node_id: str) -> dict:
    """What a client is told of a node, in order, without the words and without the host's own menus."""
    info = nodes.NODE_CLASS_MAPPINGS[node_id].GET_NODE_INFO_V1()

    def kept(name: str, options: dict) -> dict:
        left_out = ("tooltip", "options") if name in MENUS_OF_THE_HOST else ("tooltip",)
        return {key: value for key, value in options.items() if key not in left_out}

    inputs = {
        part: {name: [kind, *(kept(name, each) for each in rest)] for name, (kind, *rest) in given.items()}
        for part, given in info["input"].items()
    }
    facts = ("input_order", "output", "output_name", "output_is_list", "output_node", "name", "category")
    return {"input": inputs, **{key: info[key] for key in facts}}


def test_the_object_info_is_the_one_of_the_snapshot():
    """Workflows store widget values by position and name nodes by id, so a change here breaks them, but for
    new inputs at the end. If it is meant: delete the snapshot, run this test, and commit what it writes."""
    asyncio.run(nodes.load_custom_node(str(ROOT)))
    have = {node_id: object_info(node_id) for node_id in IDS}
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(json.dumps(have, indent=1) + "\n")
        pytest.fail(f"{SNAPSHOT.name} was missing and is written anew")
    # As text, for the order of the inputs counts.
    assert json.dumps(have, indent=1) + "\n" == SNAPSHOT.read_text()


@pytest.mark.parametrize("family", list(MODELS))
def test_calibration_gives_the_picture_of_the_uncached_model(family):
    model = build(family)
    out = calibrate(model, family)
    assert torch.equal(out.args[1]["samples"], sample(model, family, steps=10))
    profile = out.args[0]
    assert profile.steps == 10
    # q needs an older cache: none at the first step, then one more age a step
    measured = (profile.noise.sum(-1) > 0).sum(1)
    assert measured.tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert json.loads(json.dumps(out.ui, allow_nan=False))["omnicache_plot"][0]["asked"] == 10


def windowed(schedule: str):
    """The video model through windows of 6 frames."""
    return ContextWindowsManualNode.execute(build("wan"), 6, 1, schedule, 1, False, "pyramid", 2).args[0]


VIDEO = torch.full((1, 16, 12, 6, 6), 0.1)
PARTIAL = {
    "areas": lambda: (build("sd3"), "sd3", *(side[:1] for side in Conds.areas_of_both_prompts("sd3")), None),
    "a further pass": lambda: (MODEL_NODES["skip layer guidance"](build("sd3")), "sd3", None, None, None),
    "context windows": lambda: (windowed("standard_static"), "wan", None, None, VIDEO),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_calls_that_are_not_of_the_whole_latent_are_measured_too(case):
    """In the first case no call is."""
    model, family, positive, negative, latent = PARTIAL[case]()
    profile, result = calibrate(
        model, family, positive=positive, negative=negative, latent=latent, seed=3
    ).args
    assert torch.equal(result["samples"], run(model, family, positive, negative, 10, latent))
    assert (profile.noise.sum(-1) > 0).sum(1).tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert profile.coordinates[0, 0] > profile.coordinates[-1, 0] > 0  # on the way to the whole picture
    assert profile.settings.latent_shape == tuple(result["samples"].shape[1:])


def test_windows_that_move_are_refused_after_two_steps():
    model, steps = windowed("looped_uniform"), []
    model.model.diffusion_model.register_forward_hook(lambda *_: steps.append(1))
    with pytest.raises(ValueError, match="it saw other parts .* set context_schedule to standard_static"):
        calibrate(model, "wan", latent=VIDEO, steps=30)
    assert len(steps) < 30


def test_samples_add_up_and_profiles_merge_exactly():
    model = build("sd3")
    both = calibrate(model, "sd3", samples=2).args
    first = calibrate(model, "sd3").args[0]
    assert both[0].trajectories == 2 and both[1]["samples"].shape[0] == 2
    doubled = first.merged_with(first)
    assert np.array_equal(doubled.noise, 2 * first.noise)
    assert (first.residual > 0).all() and np.array_equal(doubled.residual, 2 * first.residual)
    assert np.allclose(doubled.gamma(1, 1), first.gamma(1, 1), equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 12}, "steps 10, and this calibration has 12"),
        ({"sampler": "heun"}, "sampler euler, .* heun"),
    ],
)
def test_a_profile_that_cannot_take_the_samples_is_refused_before_sampling(settings, words):
    model = build("sd3")
    earlier = calibrate(model, "sd3").args[0]
    calls = count_leaf_calls(model, "sd3")
    with pytest.raises(ValueError, match=f"profile: it was measured with {words}"):
        calibrate(model, "sd3", profile=earlier, **settings)
    assert calls[0] == 0


def test_a_profile_of_another_model_takes_no_samples():
    earlier = calibrate(build("flux"), "flux").args[0]
    with pytest.raises(ValueError, match="family flux, and this calibration has sd3"):
        calibrate(build("sd3"), "sd3", profile=earlier)


@pytest.mark.parametrize(
    ("budget_kind", "budget", "overrides"),
    [("full steps", 4, ""), ("reuse ratio", 0.4, "15 full")],
)
def test_what_only_fits_a_longer_run_or_a_shorter_is_left_to_the_sampler(budget_kind, budget, overrides):
    """4 full steps are too few for the 10 of the calibration, not for 8; and it has no step 15."""
    model = build("sd3")
    profile = calibrate(model, "sd3").args[0]
    out = CurvatureScheduler.execute("none", budget_kind, budget, "reach", 2, 2, 1, overrides, profile)
    plot = out.ui["omnicache_plot"][0]
    assert plot["reused"] is None and plot["note"].startswith("Not planned for the 10 steps")
    patch = OmniCacheModelPatch.execute(model, out.args[0]).args[0]
    assert torch.isfinite(sample(patch, "sd3", steps=20 if overrides else 8)).all()
    with pytest.raises(ValueError, match="budget|overrides"):
        sample(patch, "sd3", steps=10)


def test_limits_that_only_a_longer_run_can_meet_are_left_to_the_sampler():
    model = build("sd3")
    profile = calibrate(model, "sd3").args[0]
    arguments = ("none", "reuse ratio", 0.4, "reach", 0, 8, 1, "")
    out = CurvatureScheduler.execute(*arguments, profile)
    assert out.ui["omnicache_plot"][0]["note"].startswith("Not planned for the 10 steps")
    patch = OmniCacheModelPatch.execute(model, out.args[0]).args[0]
    assert torch.isfinite(sample(patch, "sd3", steps=24)).all()
    with pytest.raises(ValueError, match="budget"):  # what no run can meet is said at once
        CurvatureScheduler.execute("none", "reuse ratio", 0.9, "reach", 2, 2, 1, "", profile)


def test_nodes_that_read_a_saved_profile_run_again_when_it_was_saved_anew(own_folder):
    profile = calibrate(build("sd3"), "sd3", save_as="mine").args[0]
    for node in (CurvatureScheduler, RivalSchedule):
        before = node.fingerprint_inputs(saved_profile="mine.json", budget=0.5)
        assert node.fingerprint_inputs(saved_profile="mine.json", budget=0.5) == before
        library.save(profile.merged_with(profile), "mine")
        assert node.fingerprint_inputs(saved_profile="mine.json", budget=0.5) != before
        assert node.fingerprint_inputs(saved_profile="none") == node.fingerprint_inputs(saved_profile="gone")


def test_what_was_measured_is_not_lost_when_it_cannot_be_saved(monkeypatch, told):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library, "_write", full)
    out = calibrate(build("sd3"), "sd3", save_as="mine")
    assert out.args[0].trajectories == 1
    assert "not saved. save_as: " in told[0] and "No space left" in told[0]
    assert out.ui["omnicache_plot"][0]["note"].startswith("not saved")


def test_noise_levels_that_repeat_are_refused_before_sampling():
    model = build("sd3")
    calls = count_leaf_calls(model, "sd3")
    with pytest.raises(ValueError, match="30 steps repeat a noise level.* larger denoise"):
        calibrate(model, "sd3", steps=30, denoise=0.02)
    assert calls[0] == 0


def test_the_last_seed_is_followed_by_the_first():
    model = build("sd3")
    both = calibrate(model, "sd3", samples=2, seed=2**64 - 1).args[1]["samples"]
    assert torch.equal(both[1:], calibrate(model, "sd3", seed=0).args[1]["samples"])


def test_a_model_that_gives_nan_is_named():
    model = build("sd3")

    def broken(module, arguments, output):
        return output * float("nan")

    hook = model.model.diffusion_model.final_layer.register_forward_hook(broken)
    with pytest.raises(ValueError, match="model: its output at step 0 holds numbers that are not finite"):
        calibrate(model, "sd3")
    hook.remove()


def test_a_saved_profile_is_picked_by_name_and_plans(own_folder):
    model = build("sd3")
    saved = calibrate(model, "sd3", save_as="mine")
    assert "mine.json" in library.names() and str(own_folder) in saved.ui["omnicache_plot"][0]["note"]
    out = CurvatureScheduler.execute("mine.json", "reuse ratio", 0.4, "reach", 2, 2, 1, "")
    assert out.ui["omnicache_plot"][0]["full"] == 6
    patch = OmniCacheModelPatch.execute(model, out.args[0]).args[0]
    assert torch.isfinite(sample(patch, "sd3", steps=20)).all()  # another step count than the calibration's


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden"])
def test_names_that_leave_the_folder_are_refused(name, own_folder):
    if name:
        with pytest.raises(ValueError, match="save_as"):
            calibrate(build("sd3"), "sd3", save_as=name)
    assert list(own_folder.iterdir()) == []


def test_a_missing_profile_is_named_with_the_remedy():
    with pytest.raises(ValueError, match="saved_profile: there is no profile 'gone.json'"):
        CurvatureScheduler.execute("gone.json", "reuse ratio", 0.5, "curvature", 2, 2, 1, "")
    with pytest.raises(ValueError, match="profile: none is connected"):
        CurvatureScheduler.execute("none", "reuse ratio", 0.5, "curvature", 2, 2, 1, "")


def test_a_profile_of_another_model_is_refused():
    profile = calibrate(build("flux"), "flux").args[0]
    schedule = CurvatureScheduler.execute(
        "none", "reuse ratio", 0.4, "reach", 2, 2, 1, "", profile=profile
    ).args[0]
    with pytest.raises(ValueError, match="calibrated on another model .*flux"):
        OmniCacheModelPatch.execute(build("sd3"), schedule)


def test_other_weights_of_the_same_architecture_are_only_remarked_on(caplog):
    profile = calibrate(build("sd3"), "sd3").args[0]
    schedule = CurvatureScheduler.execute(
        "none", "reuse ratio", 0.4, "reach", 2, 2, 1, "", profile=profile
    ).args[0]
    other = build("sd3")
    with torch.no_grad():
        other.model.diffusion_model.final_layer.linear.bias.add_(1.0)
    with caplog.at_level(logging.WARNING, logger="omnicache"):
        sample(OmniCacheModelPatch.execute(other, schedule).args[0], "sd3", steps=10)
    assert "other weights" in caplog.text
