"""Every example workflow through the HTTP API of a real server, and what a headless user gets back."""

import copy
import io
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from host_server import PromptFailed
from labelled import NAME, labelled
from large_workflows import LARGE
from locations import ROOT

API = ROOT / "example_workflows" / "api"
NAMES = sorted(path.stem for path in API.glob("*.json"))
RUN = [name for name in NAMES if name not in LARGE]  # the others' models are not here


def workflow(name: str, steps: int = 12, batch: int = 1) -> dict:
    """An example, shortened: fewer steps and one picture."""
    graph = json.loads((API / f"{name}.json").read_text())
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = node["inputs"]["steps"] * steps // 50
        if "batch_size" in node["inputs"]:
            node["inputs"]["batch_size"] = batch
    return graph


def test_there_is_a_ui_and_an_api_file_of_each_example():
    assert RUN == [
        "image_auto",
        "image_calibrate",
        "image_compare",
        "image_generate",
        "video_calibrate",
        "video_compare",
        "video_generate",
    ]
    assert NAMES == sorted([*RUN, *LARGE])
    for name in NAMES:
        canvas = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text())
        kinds = sorted(node["type"] for node in canvas["nodes"])
        notes = ["Note"] if name in RUN else []
        assert kinds == sorted([*notes, *(node["class_type"] for node in workflow(name).values())])
        assert (ROOT / "example_workflows" / f"{name}.jpg").stat().st_size > 1000


@pytest.mark.parametrize("name", sorted(LARGE))
def test_an_example_of_a_large_model_lacks_nothing_but_the_files_of_the_host(server, name):
    """Menus of this pack are not looked at before a node runs."""
    graph = workflow(name)
    files = {
        (node, key)
        for node, part in graph.items()
        for key in ("clip_name", "vae_name", "image")
        if isinstance(part["inputs"].get(key), str)
    }
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.queue(graph)
    complaints = json.load(refused.value)["node_errors"].items()
    assert files == {
        (node, error["extra_info"]["input_name"]) for node, own in complaints for error in own["errors"]
    }


@pytest.mark.parametrize("name", RUN)
def test_the_example_runs(server, name):
    events, graph = [], workflow(name)
    for node in graph.values():
        if "seed" in node["inputs"]:
            # The host keeps what the last prompt sampled, so the same picture would not be sampled again.
            node["inputs"]["seed"] = 1000 + NAMES.index(name)
    history = server.run(graph, events.append)
    assert history["status"]["status_str"] == "success"
    saved = [image for output in history["outputs"].values() for image in output.get("images", [])]
    assert saved and all(len(server.view(image)) > 500 for image in saved)
    runs = [event["data"] for event in events if event["type"] == "omnicache.run"]
    if name.endswith("calibrate"):
        assert runs == []
    else:
        assert len(runs) == 1 and runs[0]["finished"] and runs[0]["notes"] == {}
        assert (runs[0]["full"], runs[0]["asked"]) == (12, 24)


def test_a_trained_model_in_the_layout_of_diffusers_generates_like_any_other(server):
    graph, events = labelled(workflow("image_generate"), "panda"), []
    graph["schedule"]["inputs"]["saved_profile"] = f"{NAME}.json"
    history = server.run(graph, events.append)
    (run,) = [event["data"] for event in events if event["type"] == "omnicache.run"]
    assert (run["full"], run["asked"], run["notes"]) == (12, 24, {})
    (image,) = history["outputs"]["save"]["images"]
    assert Image.open(io.BytesIO(server.view(image))).size == (64, 64)


def test_the_history_holds_the_plot(server):
    graph = workflow("image_generate")
    del graph["save"], graph["decode"], graph["sample"], graph["patch"], graph["correction"]
    payload = server.run(graph)["outputs"]["schedule"]["omnicache_plot"][0]
    assert payload["kind"] == "schedule" and payload["asked"] == 50 and payload["full"] == 25
    assert len(payload["sigmas"]) == len(payload["reused"]) == len(payload["gamma"]) == 50
    assert payload["sigmas"] == sorted(payload["sigmas"], reverse=True)


def test_a_report_reaches_the_history_and_the_saved_picture(server):
    graph = workflow("image_compare")
    for name in ("sample", "sample_uncached", "sample_fewer"):
        graph[name]["inputs"]["seed"] = 2000
    outputs = server.run(graph, extra_data={"extra_pnginfo": {}})["outputs"]
    facts = outputs["report"]["omnicache_report"][0]
    (run,) = facts["runs"]
    assert (run["full"], run["asked"], run["node"], run["this_prompt"]) == (12, 24, "sample", True)
    assert run["granularity"] == "output" and any(run["repaid"]) and facts["remarks"] == []
    assert 15 < facts["equal_time"]["psnr"] < facts["with_cache"]["psnr"] < 100
    chart = Image.open(io.BytesIO(server.view(outputs["report"]["images"][0])))
    assert chart.width == 1200
    saved = Image.open(io.BytesIO(server.view(outputs["save"]["images"][0])))
    assert json.loads(saved.text["omnicache"]) == {"report": facts}


def test_a_calibrated_profile_is_offered_and_used(server):
    server.run(workflow("image_calibrate"))
    log = server.log.read_text(encoding="utf-8")
    assert "calibrated (samples measured: 1), profile saved as" in log and "my_image_profile.json" in log
    menu = server.get("/object_info/CurvatureScheduler")["CurvatureScheduler"]["input"]["required"][
        "saved_profile"
    ]
    assert "my_image_profile.json" in menu[1].get("options", menu[0])
    graph = workflow("image_generate")
    graph["schedule"]["inputs"]["saved_profile"] = "my_image_profile.json"
    assert server.run(graph)["status"]["status_str"] == "success"


def test_auto_is_faster_from_the_first_run_on_and_repeats_its_picture(server):
    runs, pictures = [], []

    def on_event(event):
        if event["type"] == "omnicache.run":
            runs.append((event["data"]["full"], event["data"]["asked"]))

    graph = workflow("image_auto")
    for seed in (5001, 5002, 5001):  # the host keeps the last result only
        graph["sample"]["inputs"]["seed"] = seed
        (image,) = server.run(graph, on_event)["outputs"]["save"]["images"]
        pictures.append(Image.open(io.BytesIO(server.view(image))).convert("RGB").tobytes())
    assert runs == [(12, 24)] * 3
    assert pictures[0] == pictures[2] != pictures[1]


def test_a_workflow_of_0_1_0_still_runs(server):
    """Its cost is retired, and its inputs are fewer."""
    graph, events = json.loads((Path(__file__).parent / "generate_of_0.1.0.json").read_text()), []
    graph["sample"]["inputs"]["seed"] = 6000
    graph["empty"]["inputs"]["batch_size"] = 1
    assert graph["schedule"]["inputs"]["cost"] == "forecast error"
    server.run(graph, events.append)
    (run,) = [event["data"] for event in events if event["type"] == "omnicache.run"]
    assert (run["full"], run["asked"]) == (50, 100) and any(run["repaid"])
    assert "is now 'reach'" in server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g["sample"]["inputs"].update(steps=4), "steps: 4 are too few"),
        (lambda g: g["schedule"]["inputs"].update(budget=0.9), "budget: 45 of 50 steps cannot be reused"),
        (lambda g: g["schedule"]["inputs"].update(budget=1.5), "budget: 1.5 is out of range"),
        (
            lambda g: g["schedule"]["inputs"].update(saved_profile="none", cost="curvature"),
            "profile: none is connected",
        ),
        (lambda g: g["schedule"]["inputs"].update(cost="cheap"), "cost: 'cheap' is not one of reach"),
        (lambda g: g["schedule"]["inputs"].update(saved_profile="gone.json"), "gone.json"),
        (
            lambda g: g["schedule"]["inputs"].update(saved_profile="omnicache_demo_video.json"),
            "another model",
        ),
        (lambda g: g["schedule"]["inputs"].update(overrides="all"), "overrides: 'all' is not understood"),
        (lambda g: g["correction"]["inputs"].update(cutoff=5), "Value 5.0 bigger than max of 0.7: cutoff"),
    ],
)
def test_wrong_input_is_refused_with_its_name_and_the_remedy(server, change, words):
    graph = copy.deepcopy(workflow("image_generate"))
    change(graph)
    steps = []

    def on_event(event):
        if event["type"] == "progress":
            steps.append(event)

    with pytest.raises(PromptFailed, match=words):
        server.run(graph, on_event)
    assert steps == []  # nothing was sampled


def test_a_prompt_of_unknown_words_lists_the_known_ones(server):
    graph = workflow("image_generate")
    graph["positive"]["inputs"]["prompt"] = "wolf on blue"
    with pytest.raises(PromptFailed, match="Known words: apple"):
        server.run(graph)


def test_a_calibration_shows_its_progress_and_ends_when_interrupted(server):
    graph, seen = workflow("image_calibrate", steps=50), []
    graph["calibrate"]["inputs"].update(samples=4, seed=77, save_as="interrupted")

    def interrupt_at_five(event):
        if event["type"] != "progress":
            return
        seen.append((event["data"]["value"], event["data"]["max"]))
        if len(seen) == 5:
            urllib.request.urlopen(
                urllib.request.Request(f"{server.address}/interrupt", method="POST")
            ).close()

    status = server.run(graph, interrupt_at_five)["status"]
    assert seen[:5] == [(step, 200) for step in range(1, 6)]  # one bar over all four runs
    assert len(seen) < 50  # a step or two pass until the host hears of it
    assert "execution_interrupted" in [name for name, _ in status["messages"]]
    menu = json.dumps(server.get("/object_info/CurvatureScheduler"))
    assert "interrupted.json" not in menu


def test_a_profile_of_another_calibration_is_refused_before_sampling(server):
    graph, steps = workflow("image_calibrate"), []
    graph["again"] = copy.deepcopy(graph["calibrate"])
    graph["again"]["inputs"].update(profile=["calibrate", 0], steps=20, save_as="")
    graph["save"]["inputs"]["images"] = ["decode", 0]
    graph["decode"]["inputs"]["samples"] = ["again", 1]

    def on_event(event):
        if event["type"] == "progress" and event["data"]["node"] == "again":
            steps.append(event)

    with pytest.raises(PromptFailed, match="profile: it was measured with steps 12, and this .* has 20"):
        server.run(graph, on_event)
    assert steps == []
