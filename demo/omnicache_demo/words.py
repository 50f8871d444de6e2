"""What the demo models can be asked for, and how words become vectors: by seeded noise, without any
weights."""

import hashlib

import numpy as np
from numpy.typing import NDArray

OBJECTS = {
    "apple": "1f34e", "banana": "1f34c", "carrot": "1f955", "pizza": "1f355", "burger": "1f354",
    "donut": "1f369",
    "strawberry": "1f353", "watermelon": "1f349", "mushroom": "1f344", "cactus": "1f335",
    "sunflower": "1f33b",
    "cat": "1f431", "dog": "1f436", "fox": "1f98a", "frog": "1f438", "panda": "1f43c", "penguin": "1f427",
    "octopus": "1f419", "car": "1f697", "rocket": "1f680", "balloon": "1f388", "star": "2b50",
    "heart": "2764-fe0f",
    "football": "26bd",
}  # fmt: skip
"""Name of each object and the code point that names its picture."""

COLOURS = {
    "red": (214, 69, 65), "orange": (240, 150, 60), "yellow": (245, 215, 90), "green": (95, 175, 95),
    "teal": (60, 165, 165), "blue": (70, 120, 215), "purple": (150, 95, 200), "grey": (165, 165, 170),
}  # fmt: skip
MOTIONS = ("sliding", "bouncing", "spinning", "growing")
VIDEO_OBJECTS = (
    "apple",
    "banana",
    "pizza",
    "donut",
    "cat",
    "fox",
    "frog",
    "penguin",
    "car",
    "rocket",
    "star",
    "heart",
)

VOCABULARY = {"image": (tuple(OBJECTS), tuple(COLOURS)), "video": (VIDEO_OBJECTS, MOTIONS, tuple(COLOURS))}
"""The words of a prompt, in order: "fox on blue", "fox spinning on blue"."""

WIDTH = {"image": 64, "video": 4096}
"""Size of a word's vector; the host fixes the width of Wan's text."""


def vector(word: str, width: int) -> NDArray[np.float32]:
    """(width,) Gaussian noise that only this word gives, of unit variance."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(width, dtype=np.float32)


def parse(prompt: str, model: str) -> tuple[str, ...]:
    """The words of a prompt in the order of the vocabulary; empty for the empty prompt. Raises ValueError."""
    slots = VOCABULARY[model]
    words = [
        word for word in prompt.lower().replace(",", " ").split() if word not in ("a", "an", "the", "on")
    ]
    if not words:
        return ()
    if len(words) != len(slots) or any(word not in slot for word, slot in zip(words, slots, strict=True)):
        form = "fox on blue" if model == "image" else "fox spinning on blue"
        known = "; ".join(", ".join(slot) for slot in slots)
        raise ValueError(
            f"prompt: {prompt!r} is not understood. Write it like {form!r}. Known words: {known}."
        )
    return tuple(words)


def tokens(words: tuple[str, ...], model: str) -> NDArray[np.float32]:
    """(words, width) vectors of a parsed prompt; zeros for the empty one, which is what guidance leads away
    from."""
    if not words:
        return np.zeros((len(VOCABULARY[model]), WIDTH[model]), dtype=np.float32)
    return np.stack([vector(word, WIDTH[model]) for word in words])
