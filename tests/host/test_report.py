"""The report node in prompts that the host's own executor runs, with its own sampler and SaveImage."""

import copy
import inspect
import json
from collections.abc import Callable
from types import SimpleNamespace

import execution
import folder_paths
import pytest
import torch
from PIL import Image

import nodes
from comfyui_omnicache.nodes import auto, curvature_scheduler
from comfyui_omnicache.nodes.auto import OmniCacheAuto
from comfyui_omnicache.nodes.curvature_scheduler import CurvatureScheduler
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.nodes.report import OmniCacheReport
from tiny_models import MODELS, build, conditioning

STEPS = 12


def source(kind: str, make: Callable) -> type:
    """A node class with one output. make: gives it from the node's inputs."""
    names = inspect.signature(make).parameters

    class Source:
        RETURN_TYPES, FUNCTION, CATEGORY = (kind,), "give", "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {name: ("*",) for name in names}}

        def give(self, **inputs):
            return (make(**inputs),)

    return Source


def picture(samples: dict) -> torch.Tensor:
    """(count, 16, 16, 3) in 0..1 of latents."""
    pixels = samples["samples"][:, :3].sigmoid().repeat_interleave(2, -1).repeat_interleave(2, -2)
    return pixels.movedim(1, -1)


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Runs prompts one after the other in one executor; gives what the nodes left for the client.

    calls: of the tiny model, one entry each. output: the folder of what was saved.
    """
    model, calls = build("sd3"), []
    model.model.diffusion_model.joint_blocks[0].register_forward_hook(lambda *_: calls.append(1))
    latent = {"samples": torch.zeros(1, *MODELS["sd3"].shape)}
    classes = {
        "TestModel": source("MODEL", lambda: model),
        "TestText": source("CONDITIONING", lambda seed: conditioning("sd3", seed)),
        "TestLatent": source("LATENT", lambda: latent),
        "TestDecode": source("IMAGE", picture),
        "TestCrop": source("IMAGE", lambda images: images[:, :12]),
        "CurvatureScheduler": CurvatureScheduler,
        "OmniCacheAuto": OmniCacheAuto,
        "OmniCacheModelPatch": OmniCacheModelPatch,
        "OmniCacheReport": OmniCacheReport,
    }
    for name, node in classes.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "omnicache", ([], {".json"}))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    executor = execution.PromptExecutor(server, cache_args={"lru": 0, "ram": 0})

    def run(prompt: dict, prompt_id: str = "first", extra_data: dict | None = None) -> dict:
        outputs = [
            name for name, node in prompt.items() if node["class_type"] in ("OmniCacheReport", "SaveImage")
        ]
        # A copy, as over HTTP: the host writes into it.
        executor.execute(copy.deepcopy(prompt), prompt_id, extra_data or {}, outputs)
        if not executor.success:
            raise ValueError(executor.status_messages[-1][1]["exception_message"])
        return executor.history_result["outputs"]

    return SimpleNamespace(run=run, calls=calls, output=tmp_path / "output")


def graph() -> dict:
    def node(kind: str, **inputs) -> dict:
        links = {name: [value[1:], 0] for name, value in inputs.items() if str(value).startswith("@")}
        return {"class_type": kind, "inputs": {**inputs, **links}}

    return {
        "load": node("TestModel"),
        "schedule": node(
            "CurvatureScheduler", saved_profile="none", budget_kind="reuse ratio", budget=0.5, cost="even",
            max_consecutive=2, protect_first=2, protect_last=1, overrides="",
        ),
        "patch": node("OmniCacheModelPatch", model="@load", schedule="@schedule"),
        "positive": node("TestText", seed=1),
        "negative": node("TestText", seed=2),
        "latent": node("TestLatent"),
        "sample": node(
            "KSampler", model="@patch", seed=3, steps=STEPS, cfg=3.0, sampler_name="euler",
            scheduler="simple", denoise=1.0, positive="@positive", negative="@negative",
            latent_image="@latent",
        ),
        "decode": node("TestDecode", samples="@sample"),
        "report": node("OmniCacheReport", model="@patch", images="@decode"),
    }  # fmt: skip


def with_another(prompt: dict, suffix: str, **changes) -> dict:
    """Adds a second sampler, with changed inputs, and what decodes its latents."""
    prompt[f"sample{suffix}"] = copy.deepcopy(prompt["sample"])
    prompt[f"sample{suffix}"]["inputs"].update(changes)
    prompt[f"decode{suffix}"] = {"class_type": "TestDecode", "inputs": {"samples": [f"sample{suffix}", 0]}}
    return prompt


def with_reference(prompt: dict) -> dict:
    with_another(prompt, "_plain", model=["load", 0])
    prompt["report"]["inputs"]["reference"] = ["decode_plain", 0]
    return prompt


def facts_of(outputs: dict, report: str = "report") -> dict:
    return outputs[report]["omnicache_report"][0]


def saving(report: str) -> dict:
    return {"class_type": "SaveImage", "inputs": {"images": [report, 0], "filename_prefix": "a"}}


def metadata(host, outputs: dict) -> dict[str, str]:
    """The texts in the picture that SaveImage wrote."""
    return Image.open(host.output / outputs["save"]["images"][0]["filename"]).text


def test_the_facts_are_those_that_were_counted(host):
    facts = facts_of(host.run(graph()))
    (run,) = facts["runs"]
    assert len(host.calls) == run["full_steps"] == run["step_kinds"].count("full") == 6
    assert (run["full"], run["asked"]) == (12, 24)  # positive and negative
    assert len(run["step_kinds"]) == len(run["step_milliseconds"]) == len(run["sigmas"]) - 1 == STEPS
    assert (run["node"], run["prompt"], run["this_prompt"]) == ("sample", "first", True)
    assert (run["sampler"], run["family"], run["profile"]) == ("euler", "sd3", None)
    assert sum(run["step_milliseconds"]) / 1000 == pytest.approx(run["steps_seconds"], abs=0.001)
    assert run["steps_seconds"] <= run["seconds"]
    assert facts["images"] == {"count": 1, "width": 16, "height": 16}
    assert facts["with_cache"] is None and facts["equal_time"] is None
    json.dumps(facts, allow_nan=False)


def test_a_saved_picture_carries_the_facts(host):
    prompt = graph()
    prompt["save"] = saving("report")
    outputs = host.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}})
    text = metadata(host, outputs)
    assert json.loads(text["omnicache"]) == {"report": facts_of(outputs)}
    assert json.loads(text["workflow"]) == {"nodes": []}


def test_a_save_image_put_behind_it_later_still_finds_the_facts(host):
    prompt = graph()
    host.run(prompt, "first")
    before = len(host.calls)
    prompt["save"] = saving("report")
    outputs = host.run(prompt, "second", {"extra_pnginfo": {}})
    text = metadata(host, outputs)
    (run,) = json.loads(text["omnicache"])["report"]["runs"]
    assert len(host.calls) == before  # the sampler did not run again, and the report says so
    assert (run["prompt"], run["this_prompt"]) == ("first", False)


def test_a_client_that_sends_no_metadata_gets_the_report_all_the_same(host):
    prompt = graph()
    prompt["save"] = saving("report")
    outputs = host.run(prompt)
    assert "omnicache" not in metadata(host, outputs)
    assert facts_of(outputs)["runs"]


def test_the_images_pass_unchanged_and_the_chart_and_json_come_out(host, monkeypatch):
    taken = {}
    take = source("IMAGE", lambda images, chart, text: taken.update(images=images, chart=chart, text=text))
    take.OUTPUT_NODE = True
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SaveImage", take)
    decoded = []
    monkeypatch.setitem(
        nodes.NODE_CLASS_MAPPINGS,
        "TestDecode",
        source("IMAGE", lambda samples: decoded.append(picture(samples)) or decoded[-1]),
    )
    prompt = graph()
    prompt["take"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["report", 0], "chart": ["report", 1], "text": ["report", 2]},
    }
    facts = facts_of(host.run(prompt))
    assert taken["images"] is decoded[0]
    assert taken["chart"].ndim == 4 and taken["chart"].shape[0] == 1 and taken["chart"].shape[3] == 3
    assert 0 <= taken["chart"].min() and taken["chart"].max() <= 1
    assert json.loads(taken["text"]) == facts


def test_the_likeness_to_an_uncached_picture_beside_that_of_fewer_steps(host):
    prompt = with_another(with_reference(graph()), "_fewer", model=["load", 0], steps=6)
    prompt["report"]["inputs"]["equal_time"] = ["decode_fewer", 0]
    facts = facts_of(host.run(prompt))
    cached, fewer = facts["with_cache"], facts["equal_time"]
    for likeness in (fewer, cached):
        assert 10 < likeness["psnr"] < 100 and 0 < likeness["ssim"] < 1
    assert fewer != cached
    assert cached["psnr_of_each"] == [cached["psnr"]]


def test_nothing_reused_is_exactly_the_reference(host):
    prompt = with_reference(graph())
    prompt["schedule"]["inputs"]["budget"] = 0.0
    facts = facts_of(host.run(prompt))
    assert (facts["with_cache"]["psnr"], facts["with_cache"]["ssim"]) == (100.0, 1.0)
    assert facts["runs"][0]["equal_time_steps"] > 0


def test_each_report_tells_of_the_sampler_before_its_images(host):
    """Both samplers use the same patched model."""
    prompt = with_another(graph(), "_other", seed=4, steps=20)
    prompt["report_other"] = copy.deepcopy(prompt["report"])
    prompt["report_other"]["inputs"]["images"] = ["decode_other", 0]
    outputs = host.run(prompt)
    assert [run["steps"] for run in facts_of(outputs)["runs"]] == [12]
    assert [run["steps"] for run in facts_of(outputs, "report_other")["runs"]] == [20]


def test_two_samplers_after_each_other_are_both_told_of(host):
    prompt = with_another(graph(), "_again", latent_image=["sample", 0], denoise=0.8, seed=5)
    prompt["report"]["inputs"]["images"] = ["decode_again", 0]
    assert [run["node"] for run in facts_of(host.run(prompt))["runs"]] == ["sample", "sample_again"]


def test_two_patched_models_have_a_report_each(host):
    prompt = with_another(graph(), "_low", model=["patch_low", 0], latent_image=["sample", 0], denoise=0.8)
    prompt["patch_low"] = copy.deepcopy(prompt["patch"])
    # Of other settings, or the host would take the first one's output for this one's.
    prompt["patch_low"]["inputs"]["cache_dtype"] = "bf16"
    prompt["report"]["inputs"]["images"] = ["decode_low", 0]
    prompt["report_low"] = copy.deepcopy(prompt["report"])
    prompt["report_low"]["inputs"].update(model=["patch_low", 0], images=["report", 0])
    prompt["save"] = saving("report_low")
    outputs = host.run(prompt, extra_data={"extra_pnginfo": {}})
    reports = json.loads(metadata(host, outputs)["omnicache"])
    told_of = {name: [run["node"] for run in facts["runs"]] for name, facts in reports.items()}
    assert told_of == {"report": ["sample"], "report_low": ["sample_low"]}


def test_a_node_that_the_host_took_for_its_copy_is_reported_as_that(host):
    prompt = graph()
    host.run(prompt, "first")
    before = len(host.calls)
    prompt["copied"] = prompt.pop("sample")
    prompt["decode"]["inputs"]["samples"] = ["copied", 0]
    (run,) = facts_of(host.run(prompt, "second"))["runs"]
    assert len(host.calls) == before and run["node"] == "sample"


@pytest.mark.parametrize("kind", ["CurvatureScheduler", "OmniCacheAuto"])
def test_a_node_that_names_itself_runs_again_for_its_copy_and_not_for_each_prompt(host, monkeypatch, kind):
    named: list[str] = []
    for module, name in ((curvature_scheduler, "Schedule"), (auto, "_run_maker")):
        made = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, made=made: named.append(args[-1]) or made(*args))
    prompt = graph()
    first = "schedule" if kind == "CurvatureScheduler" else "patch"
    if kind == "OmniCacheAuto":
        inputs = {"model": ["load", 0], "budget": "faithful (about 1.9x)"}
        prompt["patch"] = {"class_type": kind, "inputs": inputs}
    host.run(prompt, "first")
    host.run(prompt, "second")
    assert named == [first]
    prompt["copied"] = prompt.pop(first)
    text = json.dumps(prompt).replace(f'["{first}", 0]', '["copied", 0]')
    host.run(json.loads(text), "third")
    assert named == [first, "copied"]


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_an_uncached_run_does_not_pass_for_the_one_before(host, sampler):
    prompt = graph()
    host.run(prompt, "first")
    prompt["sample"]["inputs"]["sampler_name"] = sampler
    (run,) = facts_of(host.run(prompt, "second"))["runs"]
    assert run["prompt"] == "second" and f"{sampler} chooses its own steps" in run["why_full"]
    assert run["step_kinds"] == [] and run["equal_time_steps"] is None and run["seconds"] > 0


def test_a_run_that_could_reuse_nothing_is_reported_with_the_reason(host):
    """As OmniCacheAuto does below 8 steps. The picture is saved, and compared, all the same."""
    prompt = with_reference(graph())
    prompt["patch"] = {
        "class_type": "OmniCacheAuto",
        "inputs": {"model": ["load", 0], "budget": "faithful (about 1.9x)"},
    }
    for name in ("sample", "sample_plain"):
        prompt[name]["inputs"]["steps"] = 4
    prompt["save"] = saving("report")
    outputs = host.run(prompt, extra_data={"extra_pnginfo": {}})
    facts = facts_of(outputs)
    assert "steps: 4 are too few" in facts["runs"][0]["why_full"] and facts["runs"][0]["steps"] == 4
    assert facts["with_cache"]["psnr"] == 100.0
    assert json.loads(metadata(host, outputs)["omnicache"]) == {"report": facts}


def unpatched(prompt: dict) -> None:
    prompt["report"]["inputs"]["model"] = ["load", 0]


def not_sampled(prompt: dict) -> None:
    prompt["sample"]["inputs"]["model"] = ["load", 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unpatched, "model: it carries no cache. Connect the output of OmniCache Model Patch"),
        (not_sampled, "model: it did not sample. Connect the same output"),
    ],
)
def test_a_report_without_a_run_says_why_and_hands_on_the_images(host, told, change, words):
    prompt = with_reference(graph())
    change(prompt)
    prompt["save"] = saving("report")
    outputs = host.run(prompt)
    facts = facts_of(outputs)
    assert outputs["save"]["images"] and facts["runs"] == [] and facts["remarks"][0].startswith(words)
    assert told == [f"OmniCache: {facts['remarks'][0]}"] and facts["with_cache"]["psnr"] > 0


@pytest.mark.parametrize("name", ["reference", "equal_time"])
def test_pictures_of_another_size_are_not_compared(host, name):
    prompt = with_reference(graph())
    prompt["crop"] = {"class_type": "TestCrop", "inputs": {"images": ["decode_plain", 0]}}
    prompt["report"]["inputs"][name] = ["crop", 0]
    facts = facts_of(host.run(prompt))
    words = f"{name}: 1 x 16 x 12 pixels x 3 channels cannot be compared with the 1 x 16 x 16 pixels"
    assert facts["remarks"][0].startswith(words) and len(facts["runs"]) == 1
    assert (facts["with_cache"] is None) == (name == "reference") and facts["equal_time"] is None


def test_pictures_too_small_for_a_likeness_are_not_compared(host, monkeypatch):
    monkeypatch.setitem(
        nodes.NODE_CLASS_MAPPINGS, "TestDecode", source("IMAGE", lambda samples: picture(samples)[:, :8, :8])
    )
    facts = facts_of(host.run(with_reference(graph())))
    assert facts["with_cache"] is None and facts["remarks"][0].startswith("reference: 1 x 8 x 8 pixels")


def test_fewer_steps_without_a_reference_are_not_compared(host):
    prompt = with_reference(graph())
    prompt["report"]["inputs"]["equal_time"] = prompt["report"]["inputs"].pop("reference")
    facts = facts_of(host.run(prompt))
    assert facts["equal_time"] is None and facts["remarks"][0].startswith("equal_time: there is no reference")
