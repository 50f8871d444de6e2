"""What only a GPU shows: that the host need not wait for it at any step."""

import warnings

import pytest
import torch

from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from locations import ROOT

OURS = tuple(str(ROOT / folder) for folder in ("omnicache", "nodes"))


def waits(demo, model, steps: int) -> int:
    """How often a sampling run waits for the GPU in code of the pack."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            demo.sample(model, "euler", steps, 2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) and each.filename.startswith(OURS) for each in caught)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["forecast", "age-aware", "paper", "per-band", "off"])
@pytest.mark.parametrize("kept", [("stack", "compute", "model"), ("branch", "bf16", "model")])
def test_a_run_of_more_steps_waits_no_more_often(demo, mode, kept):
    """It does at its start, where weights are compared with the profile's."""
    schedule = Schedule(Budget("reuse ratio", 0.5), profile=demo.profile)
    model = OmniCacheModelPatch.execute(demo.model, schedule, Correction(mode), *kept).args[0]
    demo.sample(model, "euler", 12, 2)
    assert waits(demo, model, 24) == waits(demo, model, 12) > 0
