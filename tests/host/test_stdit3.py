"""Open-Sora 1.2's transformer beside what the original code gives: tools/stdit3_reference.py made it."""

import json

import pytest
import torch
from safetensors import safe_open

from comfyui_omnicache.architectures.stdit3 import STDiT3, STDiT3Config
from stdit3_reference import CASES, CONFIG, REFERENCE, known_weights


@pytest.fixture(scope="module")
def reference() -> tuple[dict, dict]:
    """Outputs by case, and the shapes of the original's parameters by their names."""
    with safe_open(REFERENCE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["shapes"])


@pytest.fixture(scope="module")
def model() -> STDiT3:
    model = STDiT3.from_config(CONFIG).eval()
    model.load_state_dict(known_weights(model.state_dict()))
    return model


def inputs_of(case) -> dict:
    return {**case.inputs(), "frame_rate": case.frame_rate, "height": case.height, "width": case.width}


def test_parameters_have_the_published_names_and_shapes(model, reference):
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == reference[1]


def test_the_published_configuration_is_the_default_one():
    published = {"depth": 28, "hidden_size": 1152, "patch_size": [1, 2, 2], "num_heads": 16, "drop_path": 0.0}
    assert STDiT3Config.of(published) == STDiT3Config()


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_forward_is_that_of_the_original(case, model, reference):
    found = model(**inputs_of(CASES[case]))
    torch.testing.assert_close(found, reference[0][case], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_masked_tokens_and_tokens_that_are_not_there_are_the_same(model):
    inputs = inputs_of(CASES["image, all tokens"])
    mask = (torch.arange(9) < 5).expand(2, 9)
    shorter = model(**{**inputs, "context": inputs["context"][:, :5]})
    torch.testing.assert_close(model(**inputs, attention_mask=mask), shorter, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_for_embedded_text_is_refused():
    with pytest.raises(ValueError, match="skip_y_embedder"):
        STDiT3Config.of({"skip_y_embedder": True})
