"""Every family of the host, as a tiny random model of its classes, through its guider and sampler."""

import pytest
import torch

from cached_runs import reusing
from comfyui_omnicache.nodes.identity import prediction_of
from comfyui_omnicache.omnicache.branch_tap import BranchTap
from comfyui_omnicache.omnicache.families import FAMILIES, NOT_TRANSFORMERS, family_of
from comfyui_omnicache.omnicache.tap import StackTap
from replay_each_step import replaying_each_step
from tiny_models import MODELS, build, count_leaf_calls, sample

every_family = pytest.mark.parametrize("family", list(MODELS))


def test_each_row_of_the_table_has_a_tiny_model():
    assert {family_of(build(name).model.diffusion_model) for name in MODELS} == set(FAMILIES)


PREDICTS_NOISE = {"pixart", "pixart-alpha", "dit", "latte"}
PREDICTS_ELSE = {"cosmos", "cosmos-predict2", "hunyuan-dit", "stable-audio", "cogvideox", "cogvideox-i2v-1.5"}


@every_family
def test_what_a_model_predicts_is_told_by_the_hosts_class_for_it(family):
    usual = "epsilon" if family in PREDICTS_NOISE else "other" if family in PREDICTS_ELSE else "flow"
    assert prediction_of(build(family)) == usual


@every_family
def test_a_patch_that_reuses_nothing_changes_no_bit(family):
    model = build(family)
    assert torch.equal(sample(reusing(model, 0.0), family), sample(model, family))


@every_family
def test_reuse_changes_the_result_and_leaves_the_model_as_it_was(family):
    model = build(family)
    before = sample(model, family)
    reused = sample(reusing(model, 0.5), family)
    assert torch.isfinite(reused).all() and not torch.equal(reused, before)
    assert torch.equal(sample(model, family), before)


@every_family
def test_no_block_runs_at_a_reused_step(family):
    model = build(family)
    calls = count_leaf_calls(model, family)
    sample(model, family, steps=12)
    whole, calls[0] = calls[0], 0
    sample(reusing(model, 0.5), family, steps=12)
    assert calls[0] * 2 == whole > 0


@every_family
@pytest.mark.parametrize("tap", [StackTap, BranchTap])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_reusing_the_same_steps_cache_is_the_full_evaluation_to_rounding(family, dtype, tolerance, tap):
    model = build(family, dtype)
    patch, errors = replaying_each_step(model, tap)
    result = sample(patch, family, steps=4)
    assert len(errors) >= 4 and max(errors) <= tolerance
    assert torch.equal(result, sample(model, family, steps=4))


@pytest.mark.parametrize("family", [name for name, tiny in MODELS.items() if tiny.can_split])
def test_rows_evaluated_together_or_apart_give_the_same(family):
    model = reusing(build(family), 0.5)
    together = sample(model, family, batch=2)
    model.model.memory_required = lambda *args, **kwargs: 1e30  # the host then evaluates row by row
    apart = sample(model, family, batch=2)
    assert (apart - together).norm() <= 1e-3 * together.norm()


def test_a_model_that_is_not_in_the_table_runs_uncached_and_says_so(told):
    class NewTransformer(type(build("sd3").model.diffusion_model)):
        pass

    model = build("sd3")
    before = sample(model, "sd3")
    model.model.diffusion_model.__class__ = NewTransformer
    assert torch.equal(sample(reusing(model, 0.5), "sd3"), before)
    assert "NewTransformer" in told[0] and "runs uncached" in told[0]


@pytest.mark.parametrize("name", NOT_TRANSFORMERS)
def test_a_unet_is_refused_with_what_is_supported(name):
    model = build("sd3")
    model.model.diffusion_model = type(name, (torch.nn.Module,), {})()
    with pytest.raises(ValueError, match=f"model: {name} .*sd3"):
        reusing(model, 0.5)
