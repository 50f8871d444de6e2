"""Transformers of the diffusers library through the pack's loader and the host's samplers, against the
library's own classes and sampling loop."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import comfy.sample
import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_extras.nodes_hunyuan import EmptyHunyuanLatentVideo
from conftest_paths import ROOT
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from comfyui_omnicache.architectures.loading import DiffusersModel, ModelConfig, menu
from comfyui_omnicache.architectures.table import architecture_of
from comfyui_omnicache.nodes.class_label import OmniCacheClassLabel
from diffusers_models import (
    CASES,
    GUIDANCE,
    diffusers_latents,
    host_latents,
    load,
    sample_at,
    save,
    transformer_of,
)

STEPS = 10
every_case = pytest.mark.parametrize("name", list(CASES))


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """An empty models/diffusers, and no other folder of models."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusers", ([str(tmp_path)], {"folder"}))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([], set()))
    return tmp_path


def scheduler_for(kind: type, model, case, **options):
    """A scheduler of the library with the noise levels of the host's model, from the last timestep on."""
    scheduler = kind(
        prediction_type=case.scheduler["prediction_type"], timestep_spacing="trailing", **options
    )
    scheduler.alphas_cumprod = 1 / (model.get_model_object("model_sampling").sigmas ** 2 + 1)
    scheduler.set_timesteps(STEPS)
    return scheduler


def assert_near(have: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.isfinite(expected).all() and expected.std() > 1e-3
    assert (have - expected).norm() <= 1e-4 * expected.norm()


@every_case
@pytest.mark.parametrize("cfg", [1.0, GUIDANCE])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "ddpm"])
def test_the_hosts_samplers_give_the_latents_of_the_librarys_loop(name, sampler, cfg, models, monkeypatch):
    case = CASES[name]
    transformer, model = save(case, models / "tiny"), load("tiny")
    noise = torch.randn(2, *case.shape, generator=torch.Generator().manual_seed(3))
    host_options = {}
    if sampler == "euler":
        scheduler = scheduler_for(EulerDiscreteScheduler, model, case)
        x = noise * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    elif sampler == "ddim":
        scheduler, x = scheduler_for(DDIMScheduler, model, case, clip_sample=False), noise
    else:
        # Both draw noise at each step but the last.
        draws = [
            torch.randn(2, *case.shape, generator=torch.Generator().manual_seed(i)) for i in range(STEPS)
        ]
        ours, theirs = iter(draws), iter(draws)
        host_options["noise_sampler"] = lambda sigma, sigma_next: next(ours)
        scheduler, x = scheduler_for(DDPMScheduler, model, case, clip_sample=False), noise
        monkeypatch.setattr(
            sys.modules[type(scheduler).__module__], "randn_tensor", lambda *args, **kwargs: next(theirs)
        )
    have = host_latents(model, case, sampler, scheduler.timesteps.long(), noise, cfg, **host_options)
    assert_near(have, diffusers_latents(transformer, case, scheduler, x, cfg))


@every_case
def test_the_noise_levels_are_those_of_the_librarys_scheduler(name, models):
    case = CASES[name]
    save(case, models / "tiny")
    sampling = load("tiny").get_model_object("model_sampling")
    alphas = case.scheduler_class.from_pretrained(models / "tiny" / "scheduler").alphas_cumprod
    torch.testing.assert_close(1 / (sampling.sigmas**2 + 1), alphas.float(), rtol=1e-4, atol=1e-7)
    assert sampling.timestep(sampling.sigmas[[0, 500, 999]]).tolist() == [0, 500, 999]


@every_case
@pytest.mark.parametrize("layout", ["pipeline", "transformer", "sharded"])
def test_every_layout_gives_the_same_weights(name, layout, models):
    case = CASES[name]
    if layout == "transformer":
        transformer = transformer_of(case)
        transformer.save_pretrained(models / "some" / "where")
    else:
        size = {"max_shard_size": "100KB"} if layout == "sharded" else {}
        transformer = save(case, models / "some" / "where", **size)
    if layout == "sharded":
        assert len(list((models / "some" / "where" / "transformer").glob("*.safetensors"))) > 2
    loaded = load("some/where").model.diffusion_model.transformer.state_dict()
    assert loaded.keys() == transformer.state_dict().keys()
    for key, tensor in transformer.state_dict().items():
        assert torch.equal(loaded[key], tensor.to(loaded[key].dtype))


@every_case
def test_what_the_model_computes_for_itself_is_there(name, models):
    """Positions are no weights, and are not in the file."""
    transformer = save(CASES[name], models / "tiny")
    loaded = dict(load("tiny").model.diffusion_model.transformer.named_buffers())
    assert loaded.keys() == dict(transformer.named_buffers()).keys()
    for key, tensor in transformer.named_buffers():
        torch.testing.assert_close(loaded[key], tensor, check_dtype=False)


@every_case
@pytest.mark.parametrize(
    ("weight_dtype", "tolerance"), [("fp32", 1e-6), ("bf16", 3e-2), ("fp16", 3e-3), ("fp8_e4m3fn", 0.3)]
)
def test_each_number_format_of_the_weights_samples_much_the_same(name, weight_dtype, tolerance, models):
    case = CASES[name]
    save(case, models / "tiny")
    noise = torch.randn(1, *case.shape, generator=torch.Generator().manual_seed(3))
    timesteps = torch.tensor([999, 600, 300])
    expected = host_latents(load("tiny"), case, "euler", timesteps, noise, 1.0)
    have = host_latents(load("tiny", weight_dtype), case, "euler", timesteps, noise, 1.0)
    assert (have - expected).norm() <= tolerance * expected.norm()


def sampled(name: str, models, shape=None, conditioning=None, **options) -> torch.Tensor:
    """Two steps of a tiny model, from zeros, of another latent or conditioning than its own."""
    case = replace(CASES[name], **({"conditioning": lambda seed: conditioning} if conditioning else {}))
    save(case, models / "tiny")
    noise = torch.zeros(1, *(shape or case.shape))
    return host_latents(load("tiny"), case, "euler", torch.tensor([999, 500]), noise, 1.0, **options)


@pytest.mark.parametrize("shape", [(4, 8, 10), (4, 9, 9)])
def test_dit_takes_square_latents_only(shape, models):
    with pytest.raises(ValueError, match=f"latent_image: {shape[2]} x {shape[1]} .* square pictures only"):
        sampled("dit", models, shape)


def test_dit_takes_labels_only_and_those_it_knows(models):
    with pytest.raises(ValueError, match="positive, negative: .* OmniCache Class Label"):
        sampled("dit", models, conditioning=[[torch.zeros(1, 4, 64), {}]])
    with pytest.raises(ValueError, match="class label: 10; this model has the classes 0 to 9"):
        sampled("dit", models, conditioning=OmniCacheClassLabel.execute(10).args[0])


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("cogvideox-2b", (16, 3, 8, 9), "9 x 8 .* multiples of 2, pictures whose sides are multiples of 16"),
        ("cogvideox-5b-i2v", (16, 3, 8, 10), "10 x 8 .* for 8 x 8 only. Make it 64 x 64 pixels"),
        ("cogvideox-1.5-i2v", (16, 3, 8, 8), "3 frames in latents; .* multiples of 2. Set length to 13"),
        ("cogvideox-1.5-i2v", (16, 4, 8, 10), "the image's latents are .1, 8, 8.. Take the latent"),
    ],
)
def test_cogvideox_says_which_sizes_it_takes(name, shape, words, models):
    with pytest.raises(ValueError, match=f"latent_image: .*{words}"):
        sampled(name, models, shape)


def test_cogvideox_needs_its_image_and_no_more_text_than_it_knows(models):
    with pytest.raises(ValueError, match="positive, negative: .* OmniCache Image To Video"):
        sampled("cogvideox-5b-i2v", models, conditioning=[[torch.zeros(1, 4, 64), {}]])
    with pytest.raises(ValueError, match="positive, negative: 6 text tokens; this model takes 5"):
        sampled("cogvideox-2b", models, conditioning=[[torch.zeros(1, 6, 64), {}]])


def test_cogvideox_makes_other_sizes_than_it_was_trained_on(models):
    assert sampled("cogvideox-2b", models, (16, 5, 10, 6)).shape[1:] == (16, 5, 10, 6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 2, 8, 8), "2 frames in latents; this model makes 3, or 1. Set length .* to 9"),
        ((4, 3, 8, 7), "7 x 8 in latent pixels; this model takes multiples of 2"),
    ],
)
def test_latte_says_which_sizes_it_takes(shape, words, models):
    with pytest.raises(ValueError, match=f"latent_image: {words}"):
        sampled("latte", models, shape)


def test_latte_makes_pictures_and_other_sizes_too(models):
    assert sampled("latte", models, (4, 1, 6, 10)).shape[1:] == (4, 1, 6, 10)


def test_the_hosts_empty_latent_fits_latte(models):
    save(CASES["latte"], models / "tiny")
    empty = EmptyHunyuanLatentVideo.execute(64, 64, 9).args[0]["samples"]
    assert comfy.sample.fix_empty_latent_channels(load("tiny"), empty).shape == (1, 4, 3, 8, 8)


@pytest.mark.parametrize("name", ["latte", "cogvideox-5b"])
def test_text_of_another_encoder_is_refused(name, models):
    with pytest.raises(ValueError, match="positive, negative: text tokens of width 32; this model takes 64"):
        sampled(name, models, conditioning=[[torch.zeros(1, 4, 32), {}]])


def changed(models, change) -> None:
    """A saved tiny DiT whose weights went through a change; then it is loaded."""
    save(CASES["dit"], models / "tiny")
    file = models / "tiny" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file)
    change(weights)
    safetensors.torch.save_file(weights, file)
    load("tiny")


def test_missing_and_unknown_and_misshapen_weights_are_named_with_the_file(models):
    with pytest.raises(ValueError, match="diffusion_pytorch_model.safetensors lacks proj_out_2.bias"):
        changed(models, lambda weights: weights.pop("proj_out_2.bias"))
    with pytest.raises(ValueError, match="diffusion_pytorch_model.safetensors holds extra.weight"):
        changed(models, lambda weights: weights.update({"extra.weight": torch.zeros(1)}))
    with pytest.raises(
        ValueError, match=r"proj_out_2.bias in .*model.safetensors has the shape \(3,\), .* asks for \(32,\)"
    ):
        changed(models, lambda weights: weights.update({"proj_out_2.bias": torch.zeros(3)}))


def test_positions_in_an_older_file_are_left_out(models):
    changed(models, lambda weights: weights.update({"pos_embed.pos_embed": torch.zeros(1, 16, 64)}))


@every_case
def test_what_does_not_fit_stays_in_main_memory_until_it_is_needed(name, models):
    case = CASES[name]
    save(case, models / "tiny")
    model = load("tiny")
    noise = torch.randn(1, *case.shape, generator=torch.Generator().manual_seed(3))
    before = host_latents(model, case, "euler", torch.tensor([999, 500]), noise, 1.0)
    model.detach()
    model.load(torch.device("cpu"), lowvram_model_memory=1)
    kept = [module for module in model.model.modules() if getattr(module, "comfy_cast_weights", False)]
    assert len(kept) > 10
    assert torch.equal(host_latents(model, case, "euler", torch.tensor([999, 500]), noise, 1.0), before)


@pytest.mark.parametrize(
    ("class_name", "config", "billions", "memory"),
    [
        ("DiTTransformer2DModel", {}, 0.75, 0.68),
        (
            "CogVideoXTransformer3DModel",
            {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
            5.57,
            1.81,
        ),
    ],
)
def test_a_model_of_real_size_is_made_without_memory_for_its_weights(class_name, config, billions, memory):
    config = {"_class_name": class_name, **config}
    model = DiffusersModel(ModelConfig(config, architecture_of(class_name, "").noise(config), 1.0))
    weights = dict(model.diffusion_model.named_parameters())
    assert all(weight.is_meta for weight in weights.values())
    assert sum(weight.numel() for weight in weights.values()) / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.memory_usage_factor == pytest.approx(memory, rel=0.01)


def test_a_missing_shard_and_a_damaged_file_are_named(models):
    folder = models / "tiny" / "transformer"
    save(CASES["dit"], models / "tiny", max_shard_size="100KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{shard.name} is not a whole safetensors file"):
        load("tiny")
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing; .*index.json names it"):
        load("tiny")


def test_pickled_weights_are_refused_with_the_way_to_convert_them(models):
    folder = models / "tiny" / "transformer"
    transformer = save(CASES["dit"], models / "tiny")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(transformer.state_dict(), folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="diffusion_pytorch_model.bin is pickled") as error:
        load("tiny")
    command = str(error.value).partition("python -c ")[2].strip('"')
    subprocess.run([sys.executable, "-c", command], cwd=folder, check=True)
    assert load("tiny") is not None
    for file in folder.glob("diffusion_pytorch_model.*"):
        file.unlink()
    with pytest.raises(ValueError, match="there is no .safetensors file in .*transformer"):
        load("tiny")


def configured(models, name: str = "tiny", **changes) -> None:
    """A saved tiny DiT with another config.json; then it is loaded."""
    save(CASES["dit"], models / "tiny")
    file = models / "tiny" / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    load(name)


def test_an_unknown_class_is_named_with_its_file_and_what_is_known(models):
    with pytest.raises(ValueError, match="config.json is of the class 'FluxTransformer2DModel', .*DiTTrans"):
        configured(models, _class_name="FluxTransformer2DModel")


def test_a_configuration_that_the_library_cannot_make_is_named(models):
    with pytest.raises(ValueError, match="config.json describes no model that DiTTransformer2DModel can be"):
        configured(models, norm_type="ada_norm")


def test_a_vae_beside_it_tells_the_scale_of_the_latents(models):
    case = CASES["cogvideox-5b"]
    save(case, models / "tiny")
    assert load("tiny").get_model_object("latent_format").scale_factor == 0.7
    (models / "tiny" / "vae").mkdir()
    (models / "tiny" / "vae" / "config.json").write_text('{"scaling_factor": 0.5}')
    assert load("tiny").get_model_object("latent_format").scale_factor == 0.5
    # One that only happens to be beside it says nothing.
    transformer_of(case).save_pretrained(models / "bare")
    (models / "tiny" / "vae").rename(models / "vae")
    assert load("bare").get_model_object("latent_format").scale_factor == 0.7


def test_a_folder_that_is_gone_or_outside_is_refused(models):
    save(CASES["dit"], models / "tiny")
    for name in ("gone", "../tiny", str(models / "tiny"), "."):
        with pytest.raises(ValueError, match=f"model_folder: there is no folder {re.escape(repr(name))}"):
            load(name)


def test_an_unknown_number_format_is_refused(models):
    save(CASES["dit"], models / "tiny")
    with pytest.raises(ValueError, match="weight_dtype: 'int4' is not one of default, fp32"):
        load("tiny", "int4")


def test_the_menu_lists_transformers_and_nothing_else(models):
    save(CASES["dit"], models / "deep" / "er" / "pipeline")
    transformer_of(CASES["dit"]).save_pretrained(models / "bare")
    (models / "bare" / "broken").mkdir()
    (models / "bare" / "broken" / "config.json").write_text("{")
    (models / "deep" / "er" / "pipeline" / "vae").mkdir()
    (models / "deep" / "er" / "pipeline" / "vae" / "config.json").write_text(
        '{"_class_name": "AutoencoderKL"}'
    )
    assert menu() == ["bare", "deep/er/pipeline"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prediction_type": "sample"}, "prediction_type 'sample' is not supported"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas are not supported"),
    ],
)
def test_a_schedule_that_the_host_cannot_follow_is_refused(changes, words, models):
    save(CASES["dit"], models / "tiny")
    file = models / "tiny" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=f"scheduler_config.json: .*{words}"):
        load("tiny")


def test_a_flow_matching_scheduler_makes_a_flow_model(models):
    case = CASES["dit"]
    transformer = transformer_of(case)
    transformer.save_pretrained(models / "tiny")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.save_pretrained(models / "tiny")
    scheduler.set_timesteps(STEPS)
    model = load("tiny")
    noise = torch.randn(1, *case.shape, generator=torch.Generator().manual_seed(3))
    have = sample_at(model, case, "euler", scheduler.sigmas[:-1], noise, GUIDANCE)
    assert_near(have, diffusers_latents(transformer, case, scheduler, noise, GUIDANCE))


WITHOUT_LIBRARY = """
import sys
sys.path[:0] = {paths!r}
from in_process import load_host, load_pack
load_host()
pack = load_pack()
class NotInstalled:
    def find_spec(name, *_):
        if name == "diffusers":
            raise ModuleNotFoundError("No module named 'diffusers'", name="diffusers")
sys.meta_path.insert(0, NotInstalled)
import asyncio, folder_paths
folder_paths.folder_names_and_paths["diffusers"] = ([{models!r}], {{"folder"}})
listed = [node.__name__ for node in asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())]
from comfyui_omnicache.nodes.diffusers_loader import OmniCacheDiffusersLoader
assert "OmniCacheDiffusersLoader" in listed and "OmniCacheAuto" in listed
assert OmniCacheDiffusersLoader.GET_NODE_INFO_V1()["input"]["required"]["model_folder"]
try:
    OmniCacheDiffusersLoader.execute("tiny")
except ValueError as error:
    print(error)
"""


def test_without_the_library_the_pack_loads_and_the_node_says_what_to_install(models):
    save(CASES["dit"], models / "tiny")
    code = WITHOUT_LIBRARY.format(paths=[str(ROOT / "tools")], models=str(models))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'the diffusers library is not installed. Run  pip install "diffusers>=0.36"' in out


def test_loading_the_pack_does_not_import_the_library():
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}]\n"
        "from in_process import load_host, load_pack\nload_host()\n"
        "before = 'diffusers' in sys.modules\npack = load_pack()\nimport asyncio\n"
        "asyncio.run(pack.comfy_entrypoint())\nassert before or 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
