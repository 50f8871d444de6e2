"""Open-Sora 1.2 through the pack's loader and the host's sampler, against the original's way of sampling."""

import json

import comfy.sample
import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from safetensors.torch import save_file
from torch import Tensor

from comfyui_omnicache.architectures.open_sora import shift
from comfyui_omnicache.architectures.stdit3 import STDiT3
from diffusers_models import load
from nodes import ConditioningZeroOut
from stdit3_reference import CONFIG, known_weights

STEPS, GUIDANCE, RATE = 10, 7.0, 30.0
SHAPE = (4, 3, 6, 8)


@pytest.fixture(scope="module")
def transformer() -> STDiT3:
    model = STDiT3.from_config(CONFIG).eval()
    model.load_state_dict(known_weights(model.state_dict()))
    return model


@pytest.fixture
def model(transformer, tmp_path, monkeypatch):
    """The same weights through the loader, from a folder as it was published."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusers", ([str(tmp_path)], {"folder"}))
    folder = tmp_path / "OpenSora-STDiT-v3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["STDiT3"], **CONFIG}))
    save_file(transformer.state_dict(), folder / "model.safetensors")
    return load(folder.name)


def positive(tokens: int = 5, **entries) -> list:
    text = torch.randn(1, tokens, CONFIG["caption_channels"], generator=torch.Generator().manual_seed(2))
    return [[text, {"frame_rate": RATE, **entries}]]


def negative_of(conditioning: list) -> list:
    return ConditioningZeroOut().zero_out(conditioning)[0]


def noise() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


def times(by: float) -> Tensor:
    """Of the original's steps: even, and moved towards noise."""
    even = torch.linspace(1, 0, STEPS + 1)
    return by * even / (1 + (by - 1) * even)


@torch.inference_mode()
def as_the_original(transformer: STDiT3, text: Tensor, by: float, cfg: float) -> Tensor:
    """Its rectified flow: x moves along what the model predicts, which points to the data. Guidance is with
    as many tokens of the learned embedding of no text as the prompt has."""
    x = noise()
    no_text = transformer.y_embedder.y_embedding[None, : text.shape[1]].expand(2, -1, -1)
    for now, then in zip(times(by)[:-1], times(by)[1:], strict=True):
        velocity, without = (
            transformer(x, (1000 * now).expand(2), y, frame_rate=RATE)[:, :4]
            for y in (text.expand(2, -1, -1), no_text)
        )
        x = x + (without + cfg * (velocity - without)) * (now - then)
    return x


@torch.inference_mode()
def through_the_host(model, positive: list, sigmas: Tensor, cfg: float) -> Tensor:
    return comfy.sample.sample_custom(
        model, noise(), cfg, comfy.samplers.ksampler("euler"), sigmas, positive, negative_of(positive),
        torch.zeros(2, *SHAPE), disable_pbar=True, seed=1,
    )  # fmt: skip


def assert_near(have: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1 and (have - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("cfg", [1.0, GUIDANCE])
def test_the_hosts_euler_gives_the_latents_of_the_originals_rectified_flow(model, transformer, cfg):
    expected = as_the_original(transformer, positive()[0][0], 3.0, cfg)
    assert_near(through_the_host(model, positive(), times(3.0), cfg), expected)


def test_the_simple_scheduler_has_the_originals_times():
    by = shift(480, 854, 15)
    sampling = ModelSamplingSD3().patch(_FlowModel(), by)[0].sampling
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)
    torch.testing.assert_close(sigmas, times(by), rtol=1e-5, atol=1e-6)


class _FlowModel:
    """What ModelSamplingSD3 asks of a model."""

    class model:
        model_config = None

    def clone(self):
        return self

    def add_object_patch(self, name, sampling):
        self.sampling = sampling


def test_the_shift_is_one_for_a_picture_of_512_and_grows_with_the_root_of_the_video():
    assert shift(512, 512, 1) == 1.0
    assert shift(512, 512, 16) == 4.0
    assert shift(480, 854, 15) == pytest.approx(4.84, abs=0.01)


def test_masked_tokens_are_left_out(model):
    padded = positive(5, attention_mask=torch.tensor([[1, 1, 1, 0, 0]]))
    shorter = [[padded[0][0][:, :3], {"frame_rate": RATE}]]
    sigmas = times(3.0)[-3:]
    assert torch.equal(
        through_the_host(model, padded, sigmas, GUIDANCE), through_the_host(model, shorter, sigmas, GUIDANCE)
    )


def test_the_frame_rate_counts_and_is_24_if_nothing_is_said(model):
    def sampled(**entries):
        return through_the_host(model, [[positive()[0][0], entries]], times(3.0)[-3:], 1.0)

    assert torch.equal(sampled(), sampled(frame_rate=24.0))
    assert not torch.equal(sampled(), sampled(frame_rate=RATE))


@pytest.mark.parametrize(
    ("text", "words"), [((1, 10, 20), "10 text tokens; .* up to 9"), ((1, 4, 21), "width 21; .* T5-XXL")]
)
def test_text_that_does_not_fit_is_refused(model, text, words):
    with pytest.raises(ValueError, match=words):
        through_the_host(model, [[torch.ones(text), {}]], times(3.0)[-3:], 1.0)
