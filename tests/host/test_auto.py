"""OmniCache Auto: the first run at a setting is measured on the way, the next ones are cached."""

import errno
import os
from dataclasses import replace

import comfy.lora
import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from conftest_paths import ROOT
from test_passes import MODEL_NODES, area, lora

from cached_runs import run
from comfyui_omnicache.nodes import auto, auto_profiles, host, library, messages
from comfyui_omnicache.nodes.auto import BUDGETS, OmniCacheAuto
from comfyui_omnicache.nodes.curvature_scheduler import CurvatureScheduler
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.calibration import CalibrationRun
from comfyui_omnicache.omnicache.profile import Profile
from comfyui_omnicache.omnicache.schedule import TYPICAL_REUSE_COST
from tiny_models import MODELS, build, conditioning, sample

FAITHFUL = "faithful (about 1.9x)"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where this test's profiles are; those of other tests are neither there nor in memory."""
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths,
        "omnicache",
        ([str(tmp_path), str(ROOT / "schedules")], {".json"}),
    )
    monkeypatch.setattr(auto, "_shelf", auto_profiles.Shelf())
    return tmp_path / "auto"


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What was said on the node and in the log, but for the reports of the cached runs and for what is said
    when a run begins that measures."""
    said: list[str] = []

    def log(level: int, text: str, *args) -> None:
        if "measuring on the way" not in text % args:
            said.append(text % args)

    monkeypatch.setattr(messages, "announce", lambda report: None)
    monkeypatch.setattr(messages.log, "log", log)
    return said


def automatic(model, budget: str = FAITHFUL):
    return OmniCacheAuto.execute(model, budget).args[0]


def files(folder) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_the_budgets_promise_what_their_share_of_reused_steps_gives():
    assert list(BUDGETS) == [
        "most faithful (about 1.5x)", FAITHFUL, "fast (about 2.4x)", "fastest (about 3.1x)"
    ]  # fmt: skip
    for text, ratio in BUDGETS.items():
        factor = 1 / (1 - ratio + TYPICAL_REUSE_COST * ratio)
        assert 0 <= factor - float(text.split("about ")[1].removesuffix("x)")) < 0.1


@pytest.mark.parametrize("budget", BUDGETS)
def test_each_budget_has_a_plan_for_any_number_of_steps(budget):
    profile = Profile.from_json((ROOT / "schedules" / "omnicache_demo_image.json").read_text(), "own")
    for steps in (*range(8, 40), 100):
        plan = auto._plan(profile, torch.linspace(1, 0, steps + 1).tolist(), BUDGETS[budget])
        assert 0 < steps - plan.full <= round(BUDGETS[budget] * steps)
        if steps >= 20:
            assert steps - plan.full == round(BUDGETS[budget] * steps)


@pytest.mark.parametrize("family", ["sd3", "flux", "wan", "lumina2"])
def test_the_first_run_is_that_of_the_unpatched_model_and_the_second_reuses(family, folder, lines, reports):
    model = build(family)
    plain, patch = sample(model, family, steps=20), automatic(model)
    assert files(folder) == []  # nothing is measured before sampling
    assert torch.equal(sample(patch, family, steps=20), plain) and reports.pop().evaluations_reused == 0
    assert len(files(folder)) == 1 and files(folder)[0].startswith(f"{family} euler 20 steps ")
    cached = sample(patch, family, steps=20)
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert reports[0].finished and not reports[0].notes and reports[0].evaluations_full == 20
    assert torch.equal(sample(model, family, steps=20), plain)
    first, second = lines
    assert "calibrated on the way (this run was at full quality); the next ones will be about" in first
    assert f"profile saved as {library.AUTOMATIC}" in first
    assert f"using the profile of this setting ({family} · euler · 20 steps): computes 10 of 20" in second


def test_what_was_measured_is_what_trajectory_calibrator_measures(folder):
    from test_nodes import calibrate

    model = build("sd3")
    measured = calibrate(model, "sd3", steps=10).args[0]
    sample(automatic(model), "sd3", steps=10)
    found = library.load(os.path.join("auto", files(folder)[0]))
    assert found.model == measured.model and found.settings.latent_shape == measured.settings.latent_shape
    assert found.schedule == pytest.approx(measured.schedule)
    assert found.noise == pytest.approx(measured.noise, rel=1e-6)


def test_the_profile_can_be_picked_in_curvature_scheduler(folder):
    model = build("sd3")
    sample(automatic(model), "sd3", steps=12)
    name = os.path.join("auto", files(folder)[0])
    assert name in library.names()
    schedule = CurvatureScheduler.execute(name, "reuse ratio", 0.5, "forecast error", 0, 2, 1, "").args[0]
    by_hand = sample(OmniCacheModelPatch.execute(model, schedule).args[0], "sd3", steps=12)
    assert torch.equal(sample(automatic(model), "sd3", steps=12), by_hand)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 30}, "measured at 20 steps for these 30: computes 15 of 30"),
        ({"scheduler": "beta"}, "measured at other noise levels for these 20: computes 10 of 20"),
        ({"sampler": "dpmpp_2m"}, "measured with euler for this run with dpmpp_2m"),
        ({"sampler": "heun", "steps": 12}, "measured at 20 steps with euler for these 12 with heun"),
        ({"seed": 5, "cfg": 1.0, "batch": 2}, "of this setting"),
    ],
)
def test_a_profile_that_is_near_enough_is_used(change, words, folder, lines):
    patch = automatic(build("sd3"))
    sample(patch, "sd3", steps=20)
    assert torch.isfinite(sample(patch, "sd3", **{"steps": 20, **change})).all()
    assert len(files(folder)) == 1 and words in lines[1]


@pytest.mark.parametrize(
    "change", [{"steps": 60}, {"steps": 8}, {"sampler": "euler_ancestral"}, {"sampler": "lcm"}]
)
def test_one_that_is_not_is_measured_anew(change, folder, lines):
    model = build("sd3")
    patch = automatic(model)
    sample(patch, "sd3", steps=22)
    change = {"steps": 22, **change}
    assert torch.equal(sample(patch, "sd3", **change), sample(model, "sd3", **change))
    assert len(files(folder)) == 2 and "calibrated on the way" in lines[1]
    sample(patch, "sd3", **change)
    assert len(files(folder)) == 2 and "using the profile of this setting" in lines[2] and len(lines) == 3


def test_the_nearer_of_two_profiles_is_used(lines):
    patch = automatic(build("sd3"))
    for steps in (8, 30):
        sample(patch, "sd3", steps=steps)
    for steps, nearest in ((10, 8), (19, 30)):
        lines.clear()
        sample(patch, "sd3", steps=steps)
        assert f"measured at {nearest} steps for these {steps}" in lines[0]


@pytest.mark.parametrize(("steps", "computed"), [(8, 5), (10, 5), (12, 6), (20, 10)])
def test_a_short_run_computes_five_steps_at_least(reports, steps, computed):
    patch = automatic(build("sd3"))
    for _ in range(2):
        sample(patch, "sd3", steps=steps)
    assert list(reports[-1].step_kinds.values()).count("full") == computed


def test_another_shift_is_served_and_a_lora_or_a_size_is_not(folder, lines):
    model = build("sd3")
    sample(automatic(model), "sd3")
    shifted = ModelSamplingSD3().patch(model, 6.0)[0]
    sample(automatic(shifted), "sd3")
    assert "measured at other noise levels" in lines[1]
    changed = model.clone()
    changed.add_patches(comfy.lora.load_lora(lora(), comfy.lora.model_lora_keys_unet(changed.model, {})), 0.8)
    for number in (2, 3):
        sample(automatic(changed), "sd3")
        assert len(files(folder)) == 2 and ("calibrated" in lines[2]) and len(lines) == number + 1
    assert "using the profile of this setting" in lines[3]
    for number, shape in ((4, (16, 8, 10)), (5, (16, 16, 16)), (6, (16, 14, 16))):
        run(automatic(model), "sd3", latent=torch.zeros(1, *shape))
        assert ("calibrated" in lines[number]) == (number == 5)
    assert len(files(folder)) == 3


def test_a_lora_on_a_bias_is_the_same_while_the_model_is_loaded(folder, lines):
    """The host writes it into the weights by which models are told apart."""
    model = build("sd3")
    key = "diffusion_model.joint_blocks.0.x_block.attn.proj.bias"
    model.add_patches({key: ("diff", (torch.ones(192),))}, 0.5)
    for _ in range(2):
        sample(automatic(model), "sd3")
    assert "calibrated" in lines[0] and "using the profile of this setting" in lines[1]
    assert len(files(folder)) == 1


def test_two_parts_of_a_run_have_profiles_of_their_own(folder, lines):
    """As in graphs of two experts, which have a model for each part besides."""
    patch = automatic(build("sd3"))
    for _ in range(2):
        first = run(patch, "sd3", steps=24, last_step=12)
        run(patch, "sd3", steps=24, start_step=12, latent=first)
    assert ["calibrated" in line for line in lines] == [True, True, False, False]
    run(patch, "sd3", steps=24)  # of which the profiles know one half each
    assert "calibrated" in lines[4] and len(files(folder)) == 3
    run(patch, "sd3", steps=24, start_step=6)
    assert "measured at 24 steps for these 18" in lines[5]


def test_a_folder_that_cannot_be_written_to_leaves_the_profile_in_memory(folder, lines, reports, monkeypatch):
    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(library, "_write", refuse)
    model = build("sd3")
    plain = sample(model, "sd3")
    assert torch.equal(sample(automatic(model), "sd3"), plain)
    assert files(folder) == []
    assert "kept until ComfyUI ends, because it could not be saved: [Errno 30] Read-only" in lines[0]
    assert not torch.equal(sample(automatic(model), "sd3"), plain)
    assert "using the profile of this setting" in lines[1] and len(lines) == 2
    monkeypatch.setattr(auto_profiles.Shelf, "MOST_UNSAVED", 2)
    for steps in (34, 86, 86):
        sample(automatic(model), "sd3", steps=steps)
    assert "using the profile of this setting" in lines[-1]
    assert [profile.steps for profile in auto._shelf._unsaved] == [34, 86]  # the oldest is forgotten


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 100000])
def test_a_damaged_file_is_told_of_and_kept(content, folder, lines):
    model = build("sd3")
    plain = sample(model, "sd3")
    sample(automatic(model), "sd3")
    path = folder / files(folder)[0]
    path.write_bytes(content)
    assert torch.equal(sample(automatic(model), "sd3"), plain)
    assert "calibrated on the way" in lines[1] and "not used: " in lines[1] and path.name in lines[1]
    assert path.with_name(path.name + ".bak").read_bytes() == content
    sample(automatic(model), "sd3")
    assert "using the profile of this setting" in lines[2] and len(lines) == 3


def test_a_profile_of_another_model_under_this_ones_name_is_not_used(folder, lines):
    model = build("sd3")
    sample(automatic(model), "sd3")
    path = folder / files(folder)[0]
    path.write_text(path.read_text().replace('"weights": "', '"weights": "0'))
    sample(automatic(model), "sd3")
    assert "calibrated on the way" in lines[1]


def test_an_interrupted_run_saves_nothing(folder, lines):
    model = build("sd3")
    patch = automatic(model)

    def stop(step, *_):
        if step == 5:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patch, "sd3", callback=stop)
    assert files(folder) == [] and "not calibrated" in lines[0] and "stopped before its end" in lines[0]
    sample(patch, "sd3")
    assert len(files(folder)) == 1 and "calibrated on the way" in lines[1]


def test_an_interrupt_inside_the_model_is_not_taken_for_a_fault_of_the_measuring(lines):
    model, calls = build("sd3"), [0]

    def stop_once(*_):
        calls[0] += 1
        if calls[0] == 5:
            raise comfy.model_management.InterruptProcessingException

    model.model.diffusion_model.final_layer.register_forward_hook(stop_once)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(automatic(model), "sd3")
    assert len(lines) == 1 and "stopped before its end" in lines[0]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), ValueError("odd"), ValueError(), KeyError("x")]
)
def test_whatever_fails_while_measuring_the_run_goes_on(error, folder, lines, monkeypatch):
    measured, measure = [0], CalibrationRun._measure

    def fail(self, *args):
        measured[0] += 1
        if measured[0] == 7:
            raise type(error)(*error.args)  # pytest keeps the parameter, and that would keep all frames
        measure(self, *args)

    monkeypatch.setattr(CalibrationRun, "_measure", fail)
    model = build("sd3")
    assert torch.equal(sample(automatic(model), "sd3"), sample(model, "sd3"))
    assert measured[0] == 7 and files(folder) == []
    assert len(lines) == 1 and "not calibrated, this run was at full quality: " in lines[0]
    assert str(error) in lines[0]


def test_whatever_fails_before_a_run_the_run_goes_on(folder, lines, monkeypatch):
    model = build("sd3")
    patch, plain = automatic(model), sample(model, "sd3")
    monkeypatch.setattr(auto_profiles, "identity_of", lambda model: 1 / 0)
    assert torch.equal(sample(patch, "sd3"), plain)
    assert len(lines) == 1 and "not cached, this run is at full quality: division by zero" in lines[0]


def test_an_error_of_the_model_itself_is_not_hidden(lines):
    model = build("sd3")

    def fail(*_):
        raise RuntimeError("a block failed")

    model.model.diffusion_model.joint_blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="a block failed"):
        sample(automatic(model), "sd3")
    assert len(lines) == 1 and "a block failed" in lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 7}, "steps: 7 are too few to reuse any; at least 8 are needed"),
        ({"sampler": "dpm_fast"}, "sampler: dpm_fast chooses its own steps"),
        ({"sampler": "dpm_adaptive"}, "sampler: dpm_adaptive chooses its own steps"),
    ],
)
def test_what_cannot_be_measured_runs_as_without_the_node(options, words, folder, lines, reports):
    model = build("sd3")
    patch = automatic(model)
    for _ in range(2):
        assert torch.equal(sample(patch, "sd3", **options), sample(model, "sd3", **options))
    assert reports == [] and files(folder) == []
    assert len(lines) == 2 and all(words in line for line in lines)


def test_a_sampler_that_tells_of_no_step_is_not_calibrated(folder, lines):
    from comfy.k_diffusion.sampling import sample_euler

    def silent(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return sample_euler(model, x, sigmas, extra_args, None, disable)

    model = build("sd3")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 12)

    def sample_silently(target):
        noise = comfy.sample.prepare_noise(torch.zeros(1, *MODELS["sd3"].shape), 1)
        with torch.inference_mode():
            return comfy.sample.sample_custom(
                target, noise, 3.0, comfy.samplers.KSAMPLER(silent), sigmas, conditioning("sd3", 1),
                conditioning("sd3", 2), torch.zeros(1, *MODELS["sd3"].shape), disable_pbar=True, seed=1,
            )  # fmt: skip

    assert torch.equal(sample_silently(automatic(model)), sample_silently(model))
    assert files(folder) == [] and len(lines) == 1
    assert "this sampler reported 0 of 12 steps" in lines[0]


def test_skip_layer_guidance_is_measured_in_the_other_passes(folder, lines):
    model = MODEL_NODES["skip layer guidance"](build("sd3"))
    assert torch.equal(sample(automatic(model), "sd3"), sample(model, "sd3"))
    assert len(files(folder)) == 1
    sample(automatic(model), "sd3")
    assert "using the profile" in lines[1]


def test_areas_are_measured_too(folder, lines):
    model = build("sd3")
    positive = area(conditioning("sd3", 1), 0, 32) + area(conditioning("sd3", 4), 32, 32)
    assert torch.equal(run(automatic(model), "sd3", positive), run(model, "sd3", positive))
    run(automatic(model), "sd3", positive)
    assert "calibrated on the way" in lines[0] and "using the profile of this setting" in lines[1]


def windowed(schedule: str):
    """The video model through windows of 6 frames."""
    return ContextWindowsManualNode.execute(build("wan"), 6, 1, schedule, 1, False, "pyramid", 2).args[0]


def test_context_windows_that_stay_are_measured(folder, lines):
    model, latent = windowed("standard_static"), torch.full((1, 16, 12, 6, 6), 0.1)
    patch = automatic(model)
    assert torch.equal(run(patch, "wan", latent=latent), run(model, "wan", latent=latent))
    run(patch, "wan", latent=latent)
    assert "calibrated on the way" in lines[0] and "using the profile of this setting" in lines[1]


def test_context_windows_that_move_from_step_to_step_are_not(folder, lines):
    model, latent = windowed("looped_uniform"), torch.full((1, 16, 12, 6, 6), 0.1)
    assert torch.equal(run(automatic(model), "wan", latent=latent), run(model, "wan", latent=latent))
    assert len(lines) == 1 and files(folder) == []
    assert "not calibrated, this run was at full quality: model: it cannot be calibrated, it saw" in lines[0]
    assert "set context_schedule to standard_static" in lines[0]


def calm(folder) -> None:
    """Makes the saved profile claim a tenth of the noise."""
    (name,) = (name for name in files(folder) if name.endswith(".json"))
    profile = library.load(os.path.join("auto", name))
    (folder / name).write_text(replace(profile, noise=profile.noise / 100).to_json())


def test_a_profile_that_foretold_too_little_noise_is_measured_anew_once(folder, lines, reports):
    patch = automatic(build("sd3"), "fastest (about 3.1x)")

    def again() -> tuple[str, str]:
        """What was said when the run began, or when it had calibrated, and after it."""
        sample(patch, "sd3", steps=24)
        said = next(line for line in reversed(lines) if "steps more were" not in line)
        return said, reports[-1].summary()

    again()
    calm(folder)
    said, summary = again()
    assert "using the profile" in said and reports[-1].drifted_steps > 0
    assert summary.endswith("the next run at this setting is measured anew, in full quality")
    assert summary.split("; ")[-1] in lines[-1]  # on the node too
    said, summary = again()
    assert "calibrated on the way" in said and "not used: the earlier profile" in said
    said, summary = again()
    assert "using the profile" in said and reports[-1].drifted_steps == 0
    calm(folder)
    for _ in range(2):  # once is enough
        said, summary = again()
        assert "using the profile" in said and "take a budget nearer to quality" in summary


def test_two_runs_at_once_leave_one_valid_profile(folder, lines):
    """As of two processes with the same folder: the second begins when the first is halfway."""
    model, other = build("sd3"), build("sd3")
    plain, inner = sample(model, "sd3"), []

    def begin_another(step, *_):
        if step == 6:
            inner.append(sample(automatic(other), "sd3"))

    assert torch.equal(sample(automatic(model), "sd3", callback=begin_another), plain)
    assert torch.equal(inner[0], plain) and ["calibrated on the way" in line for line in lines] == [
        True,
        True,
    ]
    profiles = [name for name in files(folder) if name.endswith(".json")]
    assert len(profiles) == 1 and library.load(os.path.join("auto", profiles[0])).steps == 12


def test_it_replaces_another_patch_of_the_pack_and_is_replaced(reports):
    model = build("sd3")
    sample(automatic(automatic(model, "fastest (about 3.1x)")), "sd3")
    sample(automatic(automatic(model, "fastest (about 3.1x)")), "sd3")
    assert len(reports) == 2 and reports[1].planned_full == 6


def test_a_model_of_no_known_family_runs_uncached_with_a_message(lines):
    model = build("sd3")

    class Unheard(type(model.model.diffusion_model)): ...

    model.model.diffusion_model.__class__ = Unheard
    assert automatic(model) is model
    assert len(lines) == 1 and "model: Unheard is not one of the transformers" in lines[0]


def test_the_node_says_it_on_itself(monkeypatch):
    from server import PromptServer

    class Client:
        client_id, last_node_id, texts = "me", "9", []

        def send_progress_text(self, text, node_id, client_id):
            self.texts.append((node_id, text))

        def send_sync(self, *_): ...

    monkeypatch.setattr(PromptServer, "instance", Client(), raising=False)
    node = OmniCacheAuto.PREPARE_CLASS_CLONE({"UNIQUE_ID": "4"})
    patch = node.execute(build("sd3"), FAITHFUL).args[0]
    for _ in range(2):
        sample(patch, "sd3")
    assert [node_id for node_id, _ in Client.texts] == ["4", "4", "4"]
    for (_, text), words in zip(Client.texts, ("measuring", "calibrated", "using the profile"), strict=True):
        assert words in text


def test_both_runs_are_reported(reports):
    """So that OmniCacheReport has something to show of the first one too."""
    model = automatic(build("sd3"))
    run(model, "sd3")
    run(model, "sd3")
    measured, cached = reports
    assert list(measured.step_kinds.values()) == ["full"] * 12 and measured.finished
    assert measured.evaluations_full == measured.evaluations_asked == 24
    assert len(measured.step_seconds) == 12 and min(measured.step_seconds.values()) > 0
    assert cached.evaluations_full == 12 and cached.evaluations_asked == 24
    assert host.run_log_of(model).runs[-1].report is cached
