"""CogVideoX's VAE through the pack's loader and the host's VAE nodes, and what goes with it."""

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_merging import VAESave
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file

import nodes
from comfyui_omnicache.nodes.diffusers_frames import OmniCacheFramesToBatch
from comfyui_omnicache.nodes.diffusers_image_to_video import OmniCacheImageToVideo
from comfyui_omnicache.nodes.diffusers_vae_loader import OmniCacheDiffusersVAELoader
from diffusers_models import CASES, host_latents, load, save

CONFIG = {
    "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2, "sample_height": 96,
    "sample_width": 80,
}  # fmt: skip


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    for name in ("diffusers", "diffusion_models", "vae"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path)], {"folder"}))
    return tmp_path


@pytest.fixture
def library(models):
    torch.manual_seed(0)
    model = AutoencoderKLCogVideoX(**CONFIG).eval()
    model.save_pretrained(models / "video" / "vae")
    return model


@pytest.fixture
def vae(library):
    return OmniCacheDiffusersVAELoader.execute("video").args[0]


def test_the_hosts_nodes_decode_and_encode_as_the_library_does(vae, library):
    latents = torch.randn(2, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    (images,) = nodes.VAEDecode().decode(vae, {"samples": latents})
    with torch.inference_mode():
        expected = (library.decode(latents).sample / 2 + 0.5).clamp(0, 1)  # (2, 3, 9, 32, 48)
    assert images.shape == (2 * 9, 32, 48, 3)
    torch.testing.assert_close(images, expected.permute(0, 2, 3, 4, 1).flatten(0, 1), rtol=1e-4, atol=1e-5)
    (encoded,) = nodes.VAEEncode().encode(vae, images[:9])
    with torch.inference_mode():
        expected = library.encode(images[:9].permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(encoded["samples"], expected, rtol=1e-4, atol=1e-5)


def test_the_hosts_node_saves_the_weights_as_they_were(vae, models, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(models))
    VAESave().save(vae, "saved")
    saved = load_file(models / "saved_00001_.safetensors")
    given = load_file(models / "video" / "vae" / "diffusion_pytorch_model.safetensors")
    assert saved.keys() == given.keys() and all(torch.equal(saved[name], given[name]) for name in given)


def test_pictures_are_cropped_to_what_the_vae_takes(vae):
    (encoded,) = nodes.VAEEncode().encode(vae, torch.rand(1, 35, 41, 3))
    assert encoded["samples"].shape == (1, 16, 1, 4, 5)


def test_tiles_are_the_librarys_and_off_again_afterwards(vae, library):
    latents = torch.randn(1, 16, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    (whole,) = nodes.VAEDecode().decode(vae, {"samples": latents})
    (tiled,) = nodes.VAEDecodeTiled().decode(vae, {"samples": latents}, 64, 0)
    library.enable_tiling(48, 40)
    with torch.inference_mode():
        expected = (library.decode(latents).sample / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 3, 0)
    torch.testing.assert_close(tiled, expected, rtol=1e-4, atol=1e-5)
    assert tiled.shape == whole.shape and not torch.allclose(tiled, whole, atol=1e-3)
    assert torch.equal(nodes.VAEDecode().decode(vae, {"samples": latents})[0], whole)


def test_out_of_memory_it_goes_on_in_tiles(vae, monkeypatch):
    decode, calls = vae.codec.decode, []

    def decoding(latents):
        calls.append(vae.codec.autoencoder.use_tiling)
        if not calls[-1]:
            raise comfy.model_management.OOM_EXCEPTION("")
        return decode(latents)

    monkeypatch.setattr(vae.codec, "decode", decoding)
    assert vae.decode(torch.zeros(1, 16, 1, 4, 4)).shape == (1, 1, 32, 32, 3)
    assert calls == [False, True] and not vae.codec.autoencoder.use_tiling


def test_a_latent_of_pictures_is_refused(vae):
    with pytest.raises(ValueError, match=r"samples: \(1, 4, 8, 8\); this VAE takes videos"):
        vae.decode(torch.zeros(1, 4, 8, 8))


def test_an_autoencoder_of_the_host_is_not_in_the_menu(library, models):
    (models / "image" / "vae").mkdir(parents=True)
    (models / "image" / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    info = OmniCacheDiffusersVAELoader.GET_NODE_INFO_V1()
    assert info["input"]["required"]["model_folder"][1]["options"] == ["video"]


@pytest.mark.parametrize("frames", [9, 13])
def test_a_video_starts_from_a_picture_from_end_to_end(vae, models, frames):
    case = CASES["cogvideox-5b-i2v"]
    save(case, models / "tiny")
    prompt = [[torch.randn(1, 4, 64), {}]]
    positive, negative, latent = OmniCacheImageToVideo.execute(
        prompt, prompt, vae, torch.rand(1, 100, 80, 3), 64, 64, frames
    ).args
    assert latent["samples"].shape == (1, 16, (frames - 1) // 4 + 1, 8, 8)
    case = type(case)(**{**vars(case), "conditioning": lambda seed: positive if seed == 1 else negative})
    noise = torch.randn(latent["samples"].shape)
    latents = host_latents(load("tiny"), case, "euler", torch.tensor([999, 500]), noise, 3.0)
    assert latents.shape == noise.shape and torch.isfinite(latents).all()


def test_frames_become_a_batch_in_their_order():
    video = torch.arange(2 * 4 * 3.0).view(2, 4, 3, 1, 1)
    frames = OmniCacheFramesToBatch.execute({"samples": video}).args[0]["samples"]
    assert frames.shape == (6, 4, 1, 1)
    assert torch.equal(frames[4], video[1, :, 1])
    with pytest.raises(ValueError, match="samples: .* is no video"):
        OmniCacheFramesToBatch.execute({"samples": frames})
