"""Writes example_workflows/ from one description of each graph: API format for scripts, UI format for the
canvas.

make ui's Python tools/make_workflows.py     (needs the host running only to learn the order of the widgets)
"""

import json
from pathlib import Path
from typing import Any

from host_server import HostServer
from large_workflows import LARGE, Graph, node
from locations import ROOT

SAMPLING = {"cfg": 2.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
PROMPTS = {"image": "fox on blue", "video": "penguin bouncing on orange"}
BATCH = {"image": 8, "video": 4}
STEPS = 50
COLUMN, ROW = 420, 60
OF_DEMO = (
    "This uses a demo model and its OmniCache Demo nodes; `make ui` in the pack's folder starts a ComfyUI "
    "that has both. For your own model, put its loader, prompts, empty latent and VAE Decode in their place."
)
NOTES = {
    "auto": "Queue it: at about half of the steps the model is not computed. The node says how many are.",
    "calibrate": "Run it once for a model. It samples at full quality, and saves what it measured under the "
    "name in save_as.",
    "generate": "The profile only draws the plot; set saved_profile to none to do without. For ancestral and "
    "SDE samplers take Noise Corrector away.",
    "compare": "Samples three times: reused, in full, and with fewer plain steps, which take as long as the "
    "reused run. The report compares.",
}


def source(model: str, prompt: str, batch: int) -> Graph:
    """Loader, prompts and an empty latent of a demo model."""
    return {
        "load": node("UNETLoader", unet_name=f"omnicache_demo_{model}.safetensors", weight_dtype="default"),
        "positive": node("OmniCacheDemoText", model=model, prompt=prompt),
        "negative": node("OmniCacheDemoText", model=model, prompt=""),
        "empty": node("OmniCacheDemoLatent", model=model, batch_size=batch),
    }


def conditioned() -> dict[str, Any]:
    return {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0]}


def sampler(model: list, steps: int = STEPS) -> dict[str, Any]:
    return node("KSampler", model=model, seed=1, steps=steps, **SAMPLING, **conditioned())


def decoder(model: str, samples: list, layout: str) -> dict[str, Any]:
    return node("OmniCacheDemoDecode", samples=samples, model=model, layout=layout)


def saver(images: list, prefix: str) -> dict[str, Any]:
    return node("SaveImage", images=images, filename_prefix=f"omnicache/{prefix}")


def pictures(model: str, samples: list, prefix: str) -> Graph:
    return {"decode": decoder(model, samples, "sheet"), "save": saver(["decode", 0], prefix)}


def cached(model: str) -> Graph:
    return {
        "schedule": node(
            "CurvatureScheduler", saved_profile=f"omnicache_demo_{model}.json", budget_kind="reuse ratio",
            budget=0.5,
            cost="reach", max_consecutive=0, protect_first=2, protect_last=0, overrides="",
        ),
        "correction": node(
            "NoiseCorrector", mode="forecast", filter="off", switch_point=0.5, cutoff=0.25, strength=1.0,
            order=2, repay=1.0,
        ),
        "patch": node(
            "OmniCacheModelPatch", model=["load", 0], schedule=["schedule", 0], correction=["correction", 0]
        ),
        "sample": sampler(["patch", 0]),
    }  # fmt: skip


def auto(model: str) -> Graph:
    graph = source(model, PROMPTS[model], BATCH[model])
    graph["auto"] = node("OmniCacheAuto", model=["load", 0], budget="faithful (about 1.9x)")
    graph["sample"] = sampler(["auto", 0])
    return graph | pictures(model, ["sample", 0], "auto")


def calibrate(model: str) -> Graph:
    prompt = {"image": "strawberry on grey", "video": "frog sliding on purple"}[model]
    graph = source(model, prompt, 4)
    graph["calibrate"] = node(
        "TrajectoryCalibrator", model=["load", 0], **conditioned(), seed=1000, steps=STEPS, **SAMPLING,
        samples=1,
        save_as=f"my_{model}_profile",
    )  # fmt: skip
    graph["schedule"] = node(
        "CurvatureScheduler", profile=["calibrate", 0], saved_profile="none", budget_kind="reuse ratio",
        budget=0.5,
        cost="reach", max_consecutive=0, protect_first=2, protect_last=0, overrides="",
    )  # fmt: skip
    return graph | pictures(model, ["calibrate", 1], "calibration")


def generate(model: str) -> Graph:
    return (
        source(model, PROMPTS[model], BATCH[model])
        | cached(model)
        | pictures(model, ["sample", 0], "generated")
    )


def compare(model: str) -> Graph:
    """With a report, and beside it what fewer plain steps give in the same time."""
    graph = source(model, PROMPTS[model], BATCH[model]) | cached(model)
    graph["sample_uncached"] = sampler(["load", 0])
    graph["sample_fewer"] = sampler(["load", 0], STEPS // 2)  # as many as the cached one computes
    for name in ("", "_uncached", "_fewer"):
        graph[f"decode{name}"] = decoder(model, [f"sample{name}", 0], "separate")
    graph["report"] = node(
        "OmniCacheReport", model=["patch", 0], images=["decode", 0], reference=["decode_uncached", 0],
        equal_time=["decode_fewer", 0],
    )  # fmt: skip
    return graph | {"save": saver(["report", 0], "with"), "save_report": saver(["report", 1], "report")}


def to_ui(graph: Graph, info: dict[str, Any], note: str = "") -> dict[str, Any]:
    """The same graph in the format of the canvas: positions, numbered links, widget values in the host's
    order. note: text to stand above it, if any."""
    numbers = {name: number for number, name in enumerate(graph, start=1)}
    depth = {name: _depth(graph, name) for name in graph}
    tops: dict[int, int] = {}
    links: list[list] = []
    nodes = []
    for name, part in graph.items():
        description = info[part["class_type"]]
        specifications = {
            **description["input"].get("required", {}),
            **description["input"].get("optional", {}),
        }
        inputs, values = [], []
        for key, specification in specifications.items():
            value = part["inputs"].get(key)
            is_widget = isinstance(specification[0], list) or specification[0] in (
                "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO",
            )  # fmt: skip
            if not is_widget:
                inputs.append({"name": key, "type": specification[0], "link": None})
                if isinstance(value, list):
                    kind = info[graph[value[0]]["class_type"]]["output"][value[1]]
                    links.append(
                        [len(links) + 1, numbers[value[0]], value[1], numbers[name], len(inputs) - 1, kind]
                    )
                    inputs[-1]["link"] = len(links)
                continue
            options = specification[1] if len(specification) > 1 else {}
            values.append(part["inputs"].get(key, options.get("default")))
            if options.get("control_after_generate", key in ("seed", "noise_seed")):
                values.append("fixed")
        title = {"title": TITLES[name]} if name in TITLES else {}
        height = 60 + 26 * (len(inputs) + len(values)) + (230 if part["class_type"] in PLOTTED else 0)
        if part["class_type"] in PREVIEWED:
            height = 360
        top = tops.get(depth[name], 0)
        tops[depth[name]] = top + height + ROW
        nodes.append(
            {
                "id": numbers[name],
                "type": part["class_type"],
                **title,
                "pos": [depth[name] * COLUMN, top],
                "size": [360, height],
                "flags": {},
                "order": numbers[name] - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": [
                    {"name": label, "type": kind, "links": []}
                    for label, kind in zip(description["output_name"], description["output"], strict=True)
                ],
                "properties": {"Node name for S&R": part["class_type"]},
                "widgets_values": values,
            }
        )
    for number, origin, slot, *_ in links:
        nodes[origin - 1]["outputs"][slot]["links"].append(number)
    if note:
        nodes.append(
            {
                "id": len(nodes) + 1, "type": "Note", "pos": [0, -220], "size": [780, 160], "flags": {},
                "order": len(nodes), "mode": 0, "inputs": [], "outputs": [], "properties": {},
                "widgets_values": [note],
            }
        )  # fmt: skip
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links, "groups": [],
        "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


PLOTTED = ("TrajectoryCalibrator", "CurvatureScheduler")
PREVIEWED = ("SaveImage", "OmniCacheReport")
TITLES = {
    "positive": "Prompt",
    "negative": "Negative prompt",
    "sample_uncached": "KSampler, without OmniCache",
    "sample_fewer": "KSampler, fewer plain steps in the same time",
    "decode_uncached": "Decode, without OmniCache",
    "decode_fewer": "Decode, fewer plain steps",
    "save_report": "Report",
}


def _depth(graph: Graph, name: str) -> int:
    origins = [value[0] for value in graph[name]["inputs"].values() if isinstance(value, list)]
    return 1 + max((_depth(graph, origin) for origin in origins), default=-1)


def main() -> None:
    with HostServer() as server:
        info = server.object_info()
    folder = ROOT / "example_workflows"
    kinds = {"auto": auto, "calibrate": calibrate, "generate": generate, "compare": compare}
    for model in ("image", "video"):
        for kind, make in kinds.items():
            if (model, kind) == ("video", "auto"):
                continue  # the same graph but for the model
            write(folder, f"{model}_{kind}", make(model), info, f"{NOTES[kind]}\n\n{OF_DEMO}")
    for name, make in LARGE.items():
        write(folder, name, make(), info)


def write(folder: Path, name: str, graph: Graph, info: dict[str, Any], note: str = "") -> None:
    (folder / "api" / f"{name}.json").write_text(json.dumps(graph, indent=2) + "\n")
    (folder / f"{name}.json").write_text(json.dumps(to_ui(graph, info, note), indent=1) + "\n")
    print(name, flush=True)


if __name__ == "__main__":
    main()
