"""Every sampler in the host's menu, on the image demo model."""

import pytest
import torch

from comfyui_omnicache.nodes.host import FREE_RUNNING_SAMPLERS
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from demo_model import DemoModel
from in_process import ROOT
from sampler_table import measure, sampler_names


def amplifies(sampler: str) -> bool:
    """docs/samplers.md: these make any small difference large, so that nothing sure can be said of them."""
    return sampler == "lcm" or "cfg_pp" in sampler


def draws_noise(sampler: str) -> bool:
    """At each step anew, which the noise measured at the last step cannot foretell."""
    return any(word in sampler for word in ("ancestral", "sde", "ddpm", "seeds", "sa_solver"))


@pytest.fixture(scope="module")
def demo() -> DemoModel:
    return DemoModel("image")


def test_the_document_tells_of_each_sampler():
    text = (ROOT / "docs" / "samplers.md").read_text()
    assert [name for name in sampler_names() if f"| {name} |" not in text] == []


@pytest.mark.parametrize("sampler", sampler_names())
def test_nothing_reused_changes_no_bit(demo, sampler):
    schedule = Schedule(Budget("reuse ratio", 0.0), cost="even")
    patch = OmniCacheModelPatch.execute(demo.model, schedule).args[0]
    plain = demo.sample(demo.model, sampler, 8, 1)
    assert torch.isfinite(plain).all() and torch.equal(demo.sample(patch, sampler, 8, 1), plain)


@pytest.mark.parametrize("sampler", sampler_names())
def test_reuse_keeps_the_picture(demo, sampler):
    row = measure(demo, sampler, steps=16, batch=2)
    if sampler in FREE_RUNNING_SAMPLERS:
        assert row.corrected == 100.0  # uncached
    elif not amplifies(sampler) and not draws_noise(sampler):
        assert row.corrected > row.uncorrected
    elif not amplifies(sampler):
        assert row.corrected > 20.0  # the picture of the seed; what is gained depends on the profile
