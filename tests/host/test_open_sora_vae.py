"""Open-Sora 1.2's autoencoder beside what the original code gives: tools/open_sora_vae_reference.py made
it."""

import json

import pytest
import torch
from safetensors import safe_open

import nodes
from comfyui_omnicache.architectures.open_sora import OpenSoraCodec
from comfyui_omnicache.architectures.open_sora_vae import OpenSoraVAE, OpenSoraVAEConfig
from comfyui_omnicache.architectures.vae import VideoVAE
from open_sora_vae_reference import DEPTH, FRAMES, GROUPS, REFERENCE, SCALE, SHIFT, SPATIAL, WIDTH, pixels
from stdit3_reference import known_weights

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def reference() -> tuple[dict, dict]:
    """What the original gives, and the shapes of its parameters by their names."""
    with safe_open(REFERENCE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["shapes"])


class TinyVAE(OpenSoraVAE):
    @classmethod
    def from_config(cls, config):
        return cls(OpenSoraVAEConfig(SHIFT, SCALE, spatial=SPATIAL, width=WIDTH, depth=DEPTH, groups=GROUPS))


@pytest.fixture(scope="module")
def vae() -> OpenSoraVAE:
    model = TinyVAE.from_config({}).eval().requires_grad_(False)
    model.load_state_dict(known_weights(model.state_dict()))
    return model


@pytest.fixture
def host_vae(vae) -> VideoVAE:
    codec = OpenSoraCodec(TinyVAE, {})
    codec.take(vae.state_dict(), torch.float32)
    return VideoVAE(codec, torch.float32)


def test_parameters_have_the_published_names_and_shapes(vae, reference):
    assert {name: list(tensor.shape) for name, tensor in vae.state_dict().items()} == reference[1]


def test_it_encodes_as_the_original(vae, reference):
    torch.testing.assert_close(vae.encode(pixels()), reference[0]["latents"], rtol=1e-4, atol=1e-4)


def test_it_decodes_as_the_original(vae, reference):
    decoded = vae.decode(reference[0]["latents"])
    assert decoded.shape[2] == FRAMES
    torch.testing.assert_close(decoded, reference[0]["decoded"], rtol=1e-4, atol=1e-4)


def test_the_hosts_nodes_encode_and_decode(host_vae, reference):
    images = (pixels()[0].movedim(0, -1) + 1) / 2
    (encoded,) = nodes.VAEEncode().encode(host_vae, images)
    torch.testing.assert_close(encoded["samples"], reference[0]["latents"], rtol=1e-4, atol=1e-4)
    (decoded,) = nodes.VAEDecode().decode(host_vae, {"samples": reference[0]["latents"]})
    expected = ((reference[0]["decoded"][0].movedim(0, -1) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-4)


def test_tiles_change_the_seams_only_and_are_off_again_afterwards(host_vae):
    latents = {"samples": torch.randn(1, 4, 1, 12, 12, generator=torch.Generator().manual_seed(1))}
    (whole,) = nodes.VAEDecode().decode(host_vae, latents)
    (tiled,) = nodes.VAEDecodeTiled().decode(host_vae, latents, 64, 0)
    assert tiled.shape == whole.shape and not torch.allclose(tiled, whole, atol=1e-3)
    assert torch.equal(nodes.VAEDecode().decode(host_vae, latents)[0], whole)


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (5, 17), (15, 51), (6, 18)])
def test_pieces_of_5_latent_frames_are_17_frames(vae, latent_frames, frames):
    assert vae.decode(torch.zeros(1, 4, latent_frames, 1, 1)).shape[2] == frames


def test_the_published_configuration_is_read():
    published = {"shift": [0.0, 0.0, 0.0, 0.0], "scale": [1.0, 1.0, 1.0, 2.0], "micro_frame_size": 13}
    with torch.device("meta"):
        model = OpenSoraVAE.from_config(published)
    assert model.config.scale == [1.0, 1.0, 1.0, 2.0] and model.config.micro_frame_size == 13
