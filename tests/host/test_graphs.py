"""Whole graphs: several samplers, several clones of a model, loaders and other patches in any order, and the
patch taken away again."""

from itertools import permutations

import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    CFGGuider,
    DisableNoise,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
    SplitSigmas,
)
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingSD3

import nodes
from cached_runs import reusing, row_by_row, run
from tiny_models import MODELS, build, conditioning, count_leaf_calls, sample


def latent(family: str = "sd3") -> dict:
    return {"samples": torch.full((1, *MODELS[family].shape), 0.1)}


def ksampler(model, start: dict, seed: int = 3) -> dict:
    with torch.inference_mode():
        return nodes.KSampler().sample(
            model, seed, 12, 3.0, "euler", "simple", conditioning("sd3", 1), conditioning("sd3", 2), start
        )[0]


def ksampler_advanced(model, start: dict, first: int, last: int, is_end: bool, family: str = "sd3") -> dict:
    """24 steps, of which these are made."""
    with torch.inference_mode():
        return nodes.KSamplerAdvanced().sample(
            model, "enable" if first == 0 else "disable", 3, 24, 3.0, "euler", "simple",
            conditioning(family, 1), conditioning(family, 2), start, first, last,
            "disable" if is_end else "enable",
        )[0]  # fmt: skip


def split(high, low, steps: int = 24, at: int = 12) -> torch.Tensor:
    """Two SamplerCustomAdvanced behind SplitSigmas: one model for the noisy part, one for the rest."""
    sigmas = BasicScheduler.execute(high, "simple", steps, 1.0).args[0]
    result, euler = latent(), KSamplerSelect.execute("euler").args[0]
    noises = RandomNoise.execute(3), DisableNoise.execute()
    with torch.inference_mode():
        for model, part, noise in zip((high, low), SplitSigmas.execute(sigmas, at).args, noises, strict=True):
            guider = CFGGuider.execute(model, conditioning("sd3", 1), conditioning("sd3", 2), 3.0).args[0]
            result = SamplerCustomAdvanced.execute(noise.args[0], guider, euler, part, result).args[0]
    return result["samples"]


def test_split_sigmas_are_runs_of_their_own(reports):
    """The second half has no cache from the first, and as much is reused in either."""
    model = build("sd3")
    patch = reusing(model)
    together = split(patch, patch)
    assert [report.evaluations_full for report in reports] == [12, 12]
    assert [report.evaluations_reused for report in reports] == [12, 12]
    with row_by_row(patch):
        apart = split(patch, patch)
    assert (together - apart).norm() <= 1e-3 * apart.norm()
    assert not torch.equal(together, split(model, model))
    # The patch in one half only: the other half is the plain model's.
    assert torch.equal(split(model, reusing(model, 0.0)), split(model, model))


def test_a_part_too_short_to_reuse_is_refused_with_its_steps():
    patch = reusing(build("sd3"))
    with pytest.raises(ValueError, match="steps: 5 are too few"):
        split(patch, patch, steps=20, at=15)


def test_ranges_of_ksampler_advanced_are_runs_of_their_own(reports):
    patch = reusing(build("sd3"))

    def ranges() -> torch.Tensor:
        first = ksampler_advanced(patch, latent(), 0, 12, is_end=False)
        return ksampler_advanced(patch, first, 12, 10000, is_end=True)["samples"]

    together = ranges()
    assert [(report.evaluations_full, report.evaluations_asked) for report in reports] == [(12, 24)] * 2
    with row_by_row(patch):
        apart = ranges()
    assert (together - apart).norm() <= 1e-3 * apart.norm()
    assert torch.equal(together, split(patch, patch))  # the same run in other nodes


def test_two_experts_each_with_a_patch(reports):
    """Wan 2.2: one model for the noisy half of the steps, another for the rest."""
    high, low = build("wan"), build("wan")
    with torch.no_grad():
        low.model.diffusion_model.head.head.weight.mul_(1.1)
    patches = reusing(high), reusing(low)

    def experts(first, second) -> torch.Tensor:
        middle = ksampler_advanced(first, latent("wan"), 0, 12, is_end=False, family="wan")
        return ksampler_advanced(second, middle, 12, 10000, is_end=True, family="wan")["samples"]

    together = experts(*patches)
    assert all(report.finished and report.evaluations_full == 12 for report in reports)
    with row_by_row(patches[0]), row_by_row(patches[1]):
        apart = experts(*patches)
    assert (together - apart).norm() <= 1e-3 * apart.norm()
    assert not torch.equal(together, experts(high, low))
    assert not torch.equal(together, experts(patches[0], patches[0]))


def test_several_samplers_in_one_graph_do_not_meet():
    """An upscale pass behind the first, a split one beside them, and one without the patch in between."""
    model = build("sd3")
    half, third = reusing(model, 0.5), reusing(model, 0.34)

    def graph() -> list[torch.Tensor]:
        first = ksampler(half, latent())
        plain = ksampler(model, latent())
        large = nodes.LatentUpscaleBy().upscale(first, "nearest-exact", 2.0)[0]
        second = ksampler(third, large, seed=4)
        return [part["samples"] for part in (first, plain, second)] + [split(third, half)]

    results = graph()
    assert all(torch.equal(*pair) for pair in zip(results, graph(), strict=True))
    fresh = build("sd3")
    assert torch.equal(results[0], ksampler(reusing(fresh, 0.5), latent())["samples"])
    assert torch.equal(results[1], ksampler(build("sd3"), latent())["samples"])
    assert torch.equal(results[3], split(reusing(fresh, 0.34), reusing(fresh, 0.5)))
    assert results[2].shape[-1] == 2 * results[0].shape[-1] and torch.isfinite(results[2]).all()


# SD3 has block callbacks, Lumina2 gets object patches on its blocks, PixArt on the whole model.
three_ways = pytest.mark.parametrize("family", ["sd3", "lumina2", "pixart"])


@pytest.mark.parametrize("family", ["sd3", "lumina2"])
def test_differently_patched_clones_sampled_in_turn_give_what_each_gives_alone(family):
    def clones(model) -> list:
        other = reusing(model, 0.5)
        other.model_options["transformer_options"]["of_another_node"] = 1
        return [reusing(model, 0.5), model, reusing(model, 0.34), other, reusing(model, 0.0)]

    alone = [run(clones(build(family))[number], family) for number in range(5)]
    in_turn = clones(build(family))
    for number in (0, 1, 2, 0, 2, 1, 3, 0, 4, 1):
        assert torch.equal(run(in_turn[number], family), alone[number])
    assert torch.equal(alone[0], alone[3]) and torch.equal(alone[1], alone[4])
    assert not torch.equal(alone[0], alone[1]) and not torch.equal(alone[0], alone[2])


@three_ways
def test_a_bypassed_patch_gives_the_plain_model_back_and_leaves_nothing_on_it(family):
    """Bypass wires the model around the node, whose output the host still keeps."""
    model = build(family)
    calls = count_leaf_calls(model, family)
    plain = sample(model, family, steps=8)
    whole, calls[0] = calls[0], 0
    options = repr(model.model_options)
    patch = reusing(model)
    cached = sample(patch, family, steps=8)
    assert calls[0] * 2 == whole
    calls[0] = 0
    assert torch.equal(sample(model, family, steps=8), plain) and calls[0] == whole
    assert torch.equal(sample(patch, family, steps=8), cached)
    del patch
    assert torch.equal(sample(model, family, steps=8), plain)
    assert repr(model.model_options) == options and not model.object_patches
    modules = model.model.modules()
    assert not any("is_omnicache_bridge" in vars(getattr(module, "forward", None) or object)
                   for module in modules if "forward" in vars(module))  # fmt: skip


@pytest.fixture
def lora_files(tmp_path, monkeypatch) -> list[str]:
    """Two files for the host's LoRA loader."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    names = []
    for number in (0, 1):
        weight = torch.randn(3 * 192, 4, generator=torch.Generator().manual_seed(5 + number)) * 0.05
        key = f"diffusion_model.joint_blocks.{number}.x_block.attn.qkv"
        tensors = {f"{key}.lora_up.weight": weight, f"{key}.lora_down.weight": weight[:192].T.contiguous()}
        names.append(f"{number}.safetensors")
        safetensors.torch.save_file(tensors, tmp_path / names[-1])
    return names


def test_the_order_of_loaders_and_patches_does_not_matter(lora_files):
    changes = [
        reusing,
        lambda model: nodes.LoraLoaderModelOnly().load_lora_model_only(model, lora_files[0], 0.8)[0],
        lambda model: nodes.LoraLoader().load_lora(model, None, lora_files[1], -0.6, 0.0)[0],
        lambda model: ModelSamplingSD3().patch(model, 5.0)[0],
    ]
    model, results = build("sd3"), []
    plain = run(model, "sd3")
    for order in list(permutations(changes))[::3]:
        changed = model
        for change in order:
            changed = change(changed)
        results.append(run(changed, "sd3"))
        # LoRAs are added up in the order of their loaders, and sums round.
        assert (results[-1] - results[0]).norm() <= 1e-5 * results[0].norm()
    with row_by_row(changed):
        assert (run(changed, "sd3") - results[0]).norm() <= 1e-3 * results[0].norm()
    for change in changes:  # each of them counts
        without = model
        for other in changes:
            without = other(without) if other is not change else without
        assert (run(without, "sd3") - results[0]).norm() > 1e-4 * results[0].norm()
    assert torch.equal(run(model, "sd3"), plain)


@pytest.mark.parametrize("node", [EasyCacheNode, LazyCacheNode])
@pytest.mark.parametrize("is_first", [True, False])
def test_another_cache_on_the_same_model_is_refused_before_the_model_is_called(node, is_first):
    model = build("sd3")
    plain = sample(model, "sd3")
    calls = count_leaf_calls(model, "sd3")

    def cache(target):
        return node.execute(target, 0.2, 0.15, 0.95, False).args[0]

    both = reusing(cache(model)) if is_first else cache(reusing(model))
    with pytest.raises(ValueError, match="model: EasyCache or LazyCache is on this model too"):
        sample(both, "sd3")
    assert calls[0] == 0
    assert torch.equal(sample(model, "sd3"), plain)
