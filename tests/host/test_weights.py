"""Types and places of weights: half precision, fp8, and models that do not fit into the memory."""

import comfy.model_patcher
import comfy.ops
import comfy.sd
import folder_paths
import pytest
import torch
from test_passes import lora

import nodes
from cached_runs import reusing, run
from comfyui_omnicache.nodes.identity import identity_of
from comfyui_omnicache.omnicache.correction import Corrector
from demo_model import psnr
from in_process import ROOT
from tiny_models import CPU, build, count_leaf_calls, sample


@pytest.mark.parametrize("family", ["sd3", "flux", "wan", "lumina2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_reuses(family, dtype):
    model = build(family, dtype)
    matrices = [weight for weight in model.model.diffusion_model.parameters() if weight.ndim == 2]
    assert {matrix.dtype for matrix in matrices} == {dtype}
    plain = sample(model, family)
    assert torch.equal(sample(reusing(model, 0.0), family), plain)
    calls = count_leaf_calls(model, family)
    cached = sample(reusing(model), family)
    halved, calls[0] = calls[0], 0
    assert torch.equal(sample(model, family), plain) and calls[0] == 2 * halved > 0
    full = build(family)
    error = (cached - plain).norm() / plain.norm()
    expected = (sample(reusing(full), family) - sample(full, family)).norm() / sample(full, family).norm()
    assert 0 < error <= expected + 0.02  # what reuse does in fp32, and rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_corrections_are_computed_in_fp32_whatever_the_model_computes_in(dtype, monkeypatch):
    applied, apply = [0], Corrector.apply

    def checked(self, denoised, noise, gamma, sigma, step):
        assert denoised.dtype == noise.dtype == torch.float32
        out = apply(self, denoised, noise, gamma, sigma, step)
        exact = denoised.double() + gamma.value * noise.double() * sigma.double()
        assert out.dtype == torch.float32 and (out - exact).norm() <= 1e-7 * exact.norm()
        # More than half precision can hold, so neither was rounded to it on the way.
        for tensor in (noise, out):
            assert not torch.equal(tensor, tensor.to(dtype).float())
        applied[0] += 1
        return out

    monkeypatch.setattr(Corrector, "apply", checked)
    sample(reusing(build("sd3", dtype), mode="age-aware"), "sd3")
    assert applied[0] == 6


@pytest.mark.parametrize("weight_dtype, dtype", [("fp8_e4m3fn", torch.float8_e4m3fn),
                                                 ("fp8_e5m2", torch.float8_e5m2)])  # fmt: skip
def test_fp8_weights_of_the_hosts_loader_reuse(demo, weight_dtype, dtype, monkeypatch):
    folder = str(ROOT / "demo" / "models" / "diffusion_models")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([folder], {".safetensors"}))
    model = nodes.UNETLoader().load_unet("omnicache_demo_image.safetensors", weight_dtype)[0]
    weights = dict(model.model.diffusion_model.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {dtype}
    casts = count_casts(model, monkeypatch)
    plain = demo.sample(model, "euler", 12, 1)
    uncached, casts[0] = casts[0], 0
    cached = demo.sample(reusing(model, 0.4), "euler", 12, 1)
    assert casts[0] * 12 == uncached * 7 > 0  # 7 of 12 steps computed
    assert 20.0 < psnr(cached, plain) < 100.0
    assert torch.equal(demo.sample(model, "euler", 12, 1), plain)
    # The architecture is the one that the profile was measured on.
    assert identity_of(model).architecture == identity_of(demo.model).architecture


def count_casts(model, monkeypatch) -> list[int]:
    """A counter of the weights in blocks that the host casts, moves or patches for a forward."""
    names = {id(module): name for name, module in model.model.diffusion_model.named_modules()}
    casts, cast = [0], comfy.ops.cast_bias_weight

    def counted(module, *args, **kwargs):
        casts[0] += "blocks." in names.get(id(module), "") or "layers." in names.get(id(module), "")
        return cast(module, *args, **kwargs)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counted)
    return casts


class LittleMemory(comfy.model_patcher.ModelPatcher):
    """A ModelPatcher that is never given memory for its weights: the host then loads it partially."""

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        return super().partially_load(device_to, 0.1, force_patch_weights)


@pytest.mark.parametrize("family", ["sd3", "flux", "wan", "lumina2"])
def test_offloaded_weights_of_skipped_blocks_are_not_moved(family, monkeypatch):
    model = LittleMemory(build(family).model, CPU, CPU)
    casts = count_casts(model, monkeypatch)
    plain = sample(model, family)
    assert model.model.model_lowvram and casts[0] > 0
    assert torch.equal(plain, sample(build(family), family))
    casts[0] = 0
    plain = sample(model, family)
    uncached, casts[0] = casts[0], 0
    cached = sample(reusing(model), family)
    assert model.model.model_lowvram and casts[0] * 2 == uncached  # 6 of 12 steps
    casts[0] = 0
    assert torch.equal(cached, sample(reusing(build(family)), family)) and casts[0] == 0
    assert torch.equal(sample(model, family), plain) and casts[0] == uncached


def test_a_lora_on_offloaded_weights_is_computed_at_full_steps_only():
    """It is added to each weight anew whenever that is moved."""
    calls = [0]

    class Counted(comfy.model_patcher.LowVramPatch):
        def __call__(self, weight):
            calls[0] += 1
            return super().__call__(weight)

    def with_lora(model):
        return comfy.sd.load_lora_for_models(model, None, lora(), 0.8, 0.0)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_patcher, "LowVramPatch", Counted)
        model = with_lora(LittleMemory(build("sd3").model, CPU, CPU))
        run(model, "sd3")
        assert calls[0] == 12  # one weight, both prompts at once
        calls[0] = 0
        cached = run(reusing(model), "sd3")
        assert calls[0] == 6
    expected = run(reusing(with_lora(build("sd3"))), "sd3")
    assert (cached - expected).norm() <= 1e-3 * expected.norm()
