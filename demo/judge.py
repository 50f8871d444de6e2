"""Judges a demo model: which share of its samples a classifier, trained on the same data, takes for what was
asked.

    python demo/judge.py image (or video, image_fewstep, image_dit)

Samples come from the real host: stock loader, stock KSampler. Writes demo/models/<model>_samples.png and
prints the shares. The few-step student is judged at 8, 12 and 16 steps, and compared with its teacher's 50
steps from the same noise. The classifier is trained anew each time (about two minutes), on other random draws
than it is tested on.
"""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "demo")]

import data  # noqa: E402
import labelled  # noqa: E402
from host_server import HostServer  # noqa: E402
from omnicache_demo.words import COLOURS, MOTIONS, OBJECTS, VIDEO_OBJECTS  # noqa: E402

SEED = 3
CLASSIFIER_STEPS, BATCH, SIZE = 500, 64, 48
OBJECTS_OF = {"image": tuple(OBJECTS), "video": VIDEO_OBJECTS}
PER_OBJECT = {"image": 4, "video": 2}


@dataclass(frozen=True)
class Judged:
    """Weights and how they are sampled. sheet: name of the picture in demo/models, empty for none."""

    kind: str
    weights: str
    steps: int
    cfg: float
    sheet: str = ""


JUDGED = {
    "image": [Judged("image", "omnicache_demo_image", 30, 2.5, "image_samples")],
    "video": [Judged("video", "omnicache_demo_video", 30, 2.5, "video_samples")],
    "image_dit": [Judged("image", labelled.NAME, 30, 2.5, "image_dit_samples")],
    # the first is the reference of the others
    "image_fewstep": [
        Judged("image", "omnicache_demo_image", 50, 2.5),
        *(
            Judged("image", "omnicache_demo_image_fewstep", steps, 1.0, f"image_fewstep_{steps}_samples")
            for steps in (8, 12, 16)
        ),
    ],
}


def classifier(classes: int) -> nn.Module:
    widths, layers = (3, 32, 64, 96, 128), []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def frames_of(model: str, number: int) -> tuple[Tensor, Tensor]:
    """One batch of single pictures (rows, 3, 48, 48) in -1..1 and their classes."""
    pictures, words = data.batch(model, SEED, number, BATCH)
    if model == "video":
        pick = np.random.default_rng((SEED, number)).integers(data.FRAMES, size=BATCH)
        pictures = pictures[np.arange(BATCH), pick]
    classes = [OBJECTS_OF[model].index(each[0]) for each in words]
    return prepared(pictures), torch.tensor(classes)


def prepared(pictures: np.ndarray) -> Tensor:
    """(rows, height, width, 3) bytes to the classifier's input."""
    return resized(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)


def resized(pictures: Tensor) -> Tensor:
    """(rows, 3, height, width) in -1..1 to the classifier's input."""
    return nn.functional.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)


def train(model: str) -> tuple[nn.Module, float]:
    """The classifier and its accuracy on draws it has not seen."""
    torch.manual_seed(SEED)
    net = classifier(len(OBJECTS_OF[model])).train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=CLASSIFIER_STEPS)
    for number in range(CLASSIFIER_STEPS):
        pictures, classes = frames_of(model, number)
        loss = nn.functional.cross_entropy(net(pictures + 0.05 * torch.randn_like(pictures)), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        right = [
            (net(x).argmax(1) == y).float().mean().item()
            for x, y in (frames_of(model, 10_000 + n) for n in range(10))
        ]
    return net, float(np.mean(right))


def sampled(server: HostServer, judged: Judged) -> dict[str, np.ndarray]:
    """Pictures of each object from the host, (count, height, width, 3) or (count * frames, ...) bytes."""
    model = judged.kind
    workflow = json.loads((ROOT / "example_workflows" / "api" / f"{model}_generate.json").read_text())
    for name in ("schedule", "correction", "patch"):
        del workflow[name]
    takes_labels = judged.weights == labelled.NAME
    if not takes_labels:
        workflow["load"]["inputs"]["unet_name"] = f"{judged.weights}.safetensors"
    workflow["sample"]["inputs"].update(model=["load", 0], steps=judged.steps, cfg=judged.cfg)
    workflow["decode"]["inputs"]["layout"] = "separate"
    workflow["empty"]["inputs"]["batch_size"] = PER_OBJECT[model]
    result = {}
    for number, name in enumerate(OBJECTS_OF[model]):
        colour = tuple(COLOURS)[number % len(COLOURS)]
        motion = f" {MOTIONS[number % len(MOTIONS)]}" if model == "video" else ""
        if takes_labels:
            workflow = labelled.labelled(workflow, name)
        else:
            workflow["positive"]["inputs"]["prompt"] = f"{name}{motion} on {colour}"
        workflow["sample"]["inputs"]["seed"] = 500 + number
        images = server.run(workflow)["outputs"]["save"]["images"]
        pictures = [np.asarray(Image.open(io.BytesIO(server.view(image))).convert("RGB")) for image in images]
        result[name] = np.stack(pictures)
        print(f"sampled {number + 1}/{len(OBJECTS_OF[model])}: {name}", flush=True)
    return result


def save_sheet(sheet: str, samples: dict[str, np.ndarray]) -> None:
    """Pictures: two objects a row. Videos: two videos a row."""
    tiles = [np.concatenate(list(pictures[:8]), axis=1) for pictures in samples.values()]
    per_row = 2
    rows = [np.concatenate(tiles[start : start + per_row], axis=1) for start in range(0, len(tiles), per_row)]
    Image.fromarray(np.concatenate(rows)).save(ROOT / "demo" / "models" / f"{sheet}.png")


def recognised(net: nn.Module, kind: str, samples: dict[str, np.ndarray]) -> list[bool]:
    """Whether the classifier names the object asked for, for each sample; prints the objects it misses."""
    per_sample, hits = 8 if kind == "video" else 1, []
    with torch.no_grad():
        for name, pictures in samples.items():
            scores = net(prepared(pictures)).softmax(1).view(-1, per_sample, len(OBJECTS_OF[kind])).mean(1)
            right = (scores.argmax(1) == OBJECTS_OF[kind].index(name)).tolist()
            hits += right
            if not all(right):
                print(f"  {name}: {sum(right)} of {len(right)}")
    return hits


def psnr(samples: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Mean over the pictures, dB, at most 100."""
    pictures, others = (np.concatenate(list(each.values())) / 255.0 for each in (samples, reference))
    errors = ((pictures - others) ** 2).mean(axis=(1, 2, 3))
    return float((-10 * np.log10(np.maximum(errors, 1e-10))).mean())


def main() -> None:
    judged = JUDGED[sys.argv[1] if len(sys.argv) > 1 else "image"]
    kind = judged[0].kind
    net, accuracy = train(kind)
    print(f"classifier on unseen draws: {accuracy:.1%}", flush=True)
    with HostServer() as server:
        samples = [sampled(server, each) for each in judged]
    for each, pictures in zip(judged, samples, strict=True):
        if each.sheet:
            save_sheet(each.sheet, pictures)
        hits = recognised(net, kind, pictures)
        line = f"{each.weights}, {each.steps} steps, cfg {each.cfg}: {sum(hits)} of {len(hits)} samples "
        line += f"recognised ({np.mean(hits):.1%})"
        if each is not judged[0]:
            line += f", {psnr(pictures, samples[0]):.1f} dB to the first"
        print(line)


if __name__ == "__main__":
    main()
