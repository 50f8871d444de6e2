"""Prompts for the demo models, drawn as those of their training were."""

import numpy as np

from data import random_words


def drawn_prompts(kind: str, seed: int, count: int) -> list[str]:
    rng = np.random.default_rng((77, seed))
    words = [random_words(kind, rng) for _ in range(count)]
    return [" ".join((*each[:-1], "on", each[-1])) for each in words]
