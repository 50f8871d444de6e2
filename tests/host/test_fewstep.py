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
def student():
    return comfy.sd.load_diffusion_model(str(STUDENT))


def test_it_is_an_sd3_to_the_host_and_small_enough_to_ship(student):
    assert type(student.model).__name__ == "SD3"
    assert STUDENT.stat().st_size < 15e6


@pytest.mark.parametrize("steps", [8, 12, 16])
def test_few_steps_without_guidance_give_the_pictures_of_the_guided_teacher(
    student, teacher, reference, steps
):
    assert psnr(teacher.sample(student, "euler", steps, batch=4, cfg=1.0), reference) > 27


def test_the_teacher_without_guidance_does_not_give_them(teacher, reference):
    assert psnr(teacher.sample(teacher.model, "euler", 16, batch=4, cfg=1.0), reference) < 24
