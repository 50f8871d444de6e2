"""A profile with numbers a reader can check."""

import numpy as np

from comfyui_omnicache.omnicache.profile import ModelIdentity, Profile, Settings
from comfyui_omnicache.omnicache.spectrum import BAND_EDGES

STEPS, AGES, BANDS = 10, 3, len(BAND_EDGES)


def in_first_band(values: np.ndarray) -> np.ndarray:
    """All energy in the first band."""
    return np.concatenate((values[..., None], np.zeros((*values.shape, BANDS - 1))), axis=-1)


def linear_profile(steps: int = STEPS) -> Profile:
    """Noise in proportion to the cache's age, always along one direction: |q| is 0.1 per step of age while
    |output| is 1. Gamma from a source of age b to a reuse of age a is then exactly a / b. Sigmas fall evenly
    from 1 to 0."""
    step, age = np.arange(steps)[:, None], np.arange(1, AGES + 1)[None, :]
    noise = np.where(step >= age, (0.1 * age) ** 2, 0.0)
    cross = np.zeros((steps, AGES - 1, AGES))
    for now in range(steps):
        for a in range(1, AGES):
            for b in range(1, AGES + 1):
                if now - a >= b:
                    cross[now, a - 1, b - 1] = 0.1 * a * 0.1 * b
    sigmas = np.linspace(1, 0, steps + 1)
    return Profile(
        model=ModelIdentity("sd3", "a" * 16, "b" * 16, "flow"),
        settings=Settings((16, 8, 8), "euler", "simple", 3.0, 1.0),
        trajectories=2,
        sigmas=sigmas[:-1],
        final_sigma=0.0,
        timesteps=1000 * sigmas[:-1],
        turning=np.concatenate(([0.0], np.full(steps - 1, 0.4))),
        turning_squared=np.concatenate(([0.0], np.full(steps - 1, 0.1))),
        menger=np.ones(steps),
        coordinates=np.zeros((steps, 3)),
        explained=1.9,
        output=in_first_band(np.ones(steps)),
        noise=in_first_band(noise),
        cross=in_first_band(cross),
        full_seconds=np.full(steps, 1.0),
        reuse_seconds=np.full(steps, 0.02),
        residual=np.ones(steps),
        provenance={"pack": "test"},
    )
