"""The few-step student: the host's stock loader and sampler take it, and it needs no guidance."""

import comfy.sd
import pytest
import torch

from demo_model import DemoModel, psnr
from locations import ROOT

STUDENT = ROOT / "demo" / "models" / "diffusion_models" / "omnicache_demo_image_fewstep.safetensors"


@pytest.fixture(scope="module")
def teacher() -> DemoModel:
    return DemoModel("image")


@pytest.fixture(scope="module")
def reference(teacher) -> torch.Tensor:
    return teacher.sample(teacher.model, "euler", 24, batch=4)


@pytest.fixture(scope="module")
def unguided(teacher, reference) -> float:
    """PSNR in dB of the teacher without guidance to itself with it."""
    return psnr(teacher.sample(teacher.model, "euler", 16, batch=4, cfg=1.0), reference)


@pytest.fixture(scope="module")
def student():
    return comfy.sd.load_diffusion_model(str(STUDENT))


def test_it_is_an_sd3_to_the_host_and_small_enough_to_ship(student):
    assert type(student.model).__name__ == "SD3"
    assert STUDENT.stat().st_size < 15e6


@pytest.mark.parametrize("steps", [8, 12, 16])
def test_without_guidance_it_is_far_closer_to_the_guided_teacher_than_the_teacher_is(
    student, teacher, reference, unguided, steps
):
    pictures = teacher.sample(student, "euler", steps, batch=4, cfg=1.0)
    assert psnr(pictures, reference) > unguided + 4
