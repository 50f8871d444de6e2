"""Node: what the last sampling runs of a patched model did, and how like an uncached picture theirs is.

It comes after the sampling that a user has waited for, so it never stops a workflow: whatever is missing for
a part of the report, it says in the place of that part, and hands the images on.
"""

import json

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from comfyui_version import __version__ as host_version
from torch import Tensor

from ..omnicache.run_log import LoggedRun
from ..omnicache.similarity import WINDOW, psnr, ssim
from ..omnicache.version import __version__
from .host import KEY, place_in_prompt, run_log_of
from .messages import tell
from .report_chart import Pictures, draw
from .sockets import CATEGORY


class OmniCacheReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OmniCacheReport",
            display_name="OmniCache Report",
            category=CATEGORY,
            description="Shows what a cached sampling run did: which steps were computed, how long each took "
            "and how much memory the cache had; with an uncached picture beside it, how like that one it is. "
            "Pictures saved behind this node carry the facts in their metadata.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The one that went to the sampler, from OmniCache Model Patch or OmniCache Auto.",
                ),
                io.Image.Input(
                    "images",
                    tooltip="The sampler's decoded result, so that the report waits for the sampler. The "
                    "images pass on unchanged, whatever else is connected.",
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="To see what reuse changed: the decoded result of a second sampler with the same "
                    "settings and seed, on the model before OmniCache Model Patch or OmniCache Auto.",
                ),
                io.Image.Input(
                    "equal_time",
                    optional=True,
                    tooltip="To see whether fewer plain steps would do as well in the same time: the decoded "
                    "result of a third sampler, as for reference but with so many steps as the report "
                    "names. Needs reference.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "passed",
                    display_name="images",
                    tooltip="The images as they came. Save Image behind it writes the facts into the file.",
                ),
                io.Image.Output(
                    "chart", display_name="report", tooltip="The report as one picture, to save or preview."
                ),
                io.String.Output("json", tooltip="All facts as JSON text; times in seconds or milliseconds."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> float:
        # Anew in each prompt: a Save Image put behind it later would find no facts otherwise. A new NaN each
        # time, for the host compares what it hashes, and takes math.nan for the same as math.nan.
        return float("nan")

    @classmethod
    def execute(
        cls, model, images: Tensor, reference: Tensor | None = None, equal_time: Tensor | None = None
    ) -> io.NodeOutput:
        runs, remarks = _runs(model, cls.hidden.unique_id, cls.hidden.dynprompt)
        hindrances = _hindrances(images, reference, equal_time)
        remarks += hindrances.values()
        if remarks:
            tell(" ".join(remarks))
        reference = None if "reference" in hindrances else reference
        equal_time = None if reference is None or "equal_time" in hindrances else equal_time
        result, reference, equal_time = (_as_saved(each) for each in (images, reference, equal_time))
        facts = {
            "pack": f"comfyui-omnicache {__version__}",
            "host": f"ComfyUI {host_version}",
            "torch": str(torch.__version__),
            "device": _device(),
            "images": {"count": images.shape[0], "width": images.shape[2], "height": images.shape[1]},
            "runs": runs,
            "remarks": remarks,
            "with_cache": _likeness(result, reference),
            "equal_time": _likeness(equal_time, reference),
        }
        pictures = Pictures(reference, result, equal_time) if reference is not None else None
        chart = draw(facts, pictures)
        _put_into_metadata(cls.hidden.extra_pnginfo, cls.hidden.unique_id, facts)
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), "omnicache_report": [facts]}
        return io.NodeOutput(images, chart, json.dumps(facts, indent=1, allow_nan=False), ui=shown)


def _hindrances(images: Tensor, reference: Tensor | None, equal_time: Tensor | None) -> dict[str, str]:
    """Why one of the inputs that are there cannot be compared with."""
    given = {"reference": reference, "equal_time": equal_time}
    found = {}
    for name, other in given.items():
        if other is None:
            continue
        if other.shape != images.shape:
            found[name] = (
                f"{name}: {_size(other)} cannot be compared with the {_size(images)} of images. Decode both "
                "from latents of the same size and batch."
            )
        elif min(images.shape[1:3]) < WINDOW:
            found[name] = (
                f"{name}: {_size(images)} are too few to compare. Give pictures of at least {WINDOW} x "
                f"{WINDOW} pixels."
            )
    if equal_time is not None and reference is None:
        found["equal_time"] = (
            "equal_time: there is no reference to compare it with. Connect the picture of all steps without "
            "a cache to reference."
        )
    return found


def _size(images: Tensor) -> str:
    count, height, width, channels = images.shape
    return f"{count} x {width} x {height} pixels x {channels} channels"


def _runs(model, node: str | None, graph) -> tuple[list[dict], list[str]]:
    """The facts of the sampling runs that led to the images, or why there are none. node: this one's name in
    the host's graph of the prompt."""
    log = run_log_of(model)
    if log is None:
        return [], [
            "model: it carries no cache. Connect the output of OmniCache Model Patch or OmniCache Auto, the "
            "same that goes to the sampler; if it is connected, that node says why it did nothing."
        ]
    if not log.runs:
        return [], [
            "model: it did not sample. Connect the same output of OmniCache Model Patch or OmniCache Auto to "
            "the sampler and to this node, and the sampler's decoded result to images."
        ]
    prompt = place_in_prompt()[1]
    return [
        {**run.as_dict(), "this_prompt": run.prompt == prompt} for run in _leading_to(log.runs, node, graph)
    ], []


def _leading_to(runs: tuple[LoggedRun, ...], node: str | None, graph) -> list[LoggedRun]:
    """Those of the nodes before images. The host may have taken an equal node's result for one of these, as
    after a node was copied and the first deleted: then those of the last prompt."""
    before = _before(node, graph) if graph is not None else set()
    # A node that another one made while running is called after it: "7.0.0.3".
    return [run for run in runs if run.node and {run.node, run.node.split(".")[0]} & before] or [
        run for run in runs if run.prompt == runs[-1].prompt
    ]


def _before(node: str, graph) -> set[str]:
    """The nodes that what comes to images of this node depends on."""
    found: set[str] = set()
    waiting = [graph.get_node(node)["inputs"]["images"]]
    while waiting:
        source = waiting.pop()
        is_link = isinstance(source, list) and len(source) == 2
        if is_link and source[0] not in found and graph.has_node(source[0]):
            found.add(source[0])
            waiting += graph.get_node(source[0])["inputs"].values()
    return found


def _likeness(images: Tensor | None, reference: Tensor | None) -> dict | None:
    """PSNR, dB, and SSIM of each picture or frame, and their means."""
    if images is None or reference is None:
        return None
    facts = {}
    for name, measure in (("psnr", psnr), ("ssim", ssim)):
        values = measure(images, reference)
        facts[name] = round(float(values.mean()), 5)
        facts[f"{name}_of_each"] = [round(value, 5) for value in values.tolist()]
    return facts


def _as_saved(images: Tensor | None) -> Tensor | None:
    """What Save Image would make of them, but for the rounding."""
    return images.float().cpu().nan_to_num(0.0).clamp(0, 1) if images is not None else None


def _put_into_metadata(metadata: dict | None, node: str | None, facts: dict) -> None:
    """The host hands one dictionary to all nodes of a prompt, and its saving nodes write it into their files.
    There is none if a client queued the prompt without."""
    if metadata is not None:
        metadata.setdefault(KEY, {})[node] = facts


def _device() -> str:
    return comfy.model_management.get_torch_device_name(comfy.model_management.get_torch_device())
