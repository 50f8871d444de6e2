"""What a small classifier of the demo's data (demo/judge.py) makes of pictures: classes, features, and how
far two pictures are apart in its layers."""

import io
from functools import cache

import numpy as np
import torch

import judge
from measures import layer_distance, psnr, ssim
from quality_tasks import FOLDER

DATA_BATCHES, FIRST_DATA_BATCH = 16, 20_000  # draws of the data that neither training nor its test have seen


@torch.no_grad()
def judged(kind: str, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities of each sample, mean over its frames, and features (samples, 128) of one frame
    each."""
    net = judge_of(kind)
    samples, frames = pictures.shape[:2]
    features = net[:-1](as_input(pictures))
    probabilities = net[-1](features).softmax(1).view(samples, frames, -1).mean(1)
    features = features.view(samples, frames, -1)
    return probabilities.numpy(), features[np.arange(samples), np.arange(samples) % frames].numpy()


def classes_of(kind: str, prompts: list[str]) -> list[int]:
    return [judge.OBJECTS_OF[kind].index(prompt.split(" ")[0]) for prompt in prompts]


def per_sample(kind: str, pictures: np.ndarray, reference: np.ndarray) -> dict[str, list[float]]:
    """For each sample, mean over its frames: PSNR, SSIM, and the distance in the classifier's layers.
    pictures, reference: (samples, frames, height, width, 3) in 0..1."""
    net = judge_of(kind)
    pairs = list(zip(pictures, reference, strict=True))
    doubles = [(mine.astype(np.float64), plain.astype(np.float64)) for mine, plain in pairs]
    return {
        "psnr": [psnr(*pair) for pair in doubles],
        "ssim": [ssim(*pair) for pair in doubles],
        "distance": [
            float(layer_distance(layers(net, as_input(mine)), layers(net, as_input(plain))).mean())
            for mine, plain in pairs
        ],
    }


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """(..., height, width, 3) in 0..1 to the classifier's input, in float: bytes would hide what is small."""
    flat = torch.from_numpy(pictures.reshape(-1, *pictures.shape[-3:])).permute(0, 3, 1, 2).float()
    return judge.resized(flat * 2 - 1)


@torch.no_grad()
def layers(net: torch.nn.Sequential, pictures: torch.Tensor) -> list[np.ndarray]:
    """What each of the classifier's convolutions gives, behind its ReLU."""
    found = []
    for layer in net[:-3]:
        pictures = layer(pictures)
        if isinstance(layer, torch.nn.ReLU):
            found.append(pictures.numpy())
    return found


@cache
def judge_of(kind: str) -> torch.nn.Sequential:
    """demo/judge.py's classifier, trained once (about two minutes) and kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"judge_{kind}.pt"
    if not path.exists():
        print(f"training the classifier of the {kind} model ...", flush=True)
        net, accuracy = judge.train(kind)
        buffer = io.BytesIO()
        torch.save({"weights": net.state_dict(), "accuracy": accuracy}, buffer)
        partial = path.with_suffix(".part")
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    net = judge.classifier(len(judge.OBJECTS_OF[kind]))
    net.load_state_dict(torch.load(path, weights_only=True)["weights"])
    keep_data_features(kind, net.eval())
    return net


@torch.no_grad()
def keep_data_features(kind: str, net: torch.nn.Sequential) -> None:
    """Features of draws of the data, one frame of each video."""
    path = FOLDER / f"data_{kind}.npy"
    if not path.exists():
        batches = (judge.frames_of(kind, FIRST_DATA_BATCH + number)[0] for number in range(DATA_BATCHES))
        np.save(path, np.concatenate([net[:-1](batch).numpy() for batch in batches]))
