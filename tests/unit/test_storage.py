"""What a cached tensor loses by the way it is kept."""

import pytest
import torch

from comfyui_omnicache.omnicache.storage import Storage


def test_the_compute_dtype_keeps_the_very_tensor():
    tensor = torch.randn(2, 3, 4)
    assert Storage().keep(tensor).whole() is tensor
    assert Storage(device="cpu").keep(tensor).whole() is tensor  # a CPU model's cache is there already


@pytest.mark.parametrize(
    ("dtype", "bytes_of_number", "largest_error"), [("bf16", 2, 2.0**-8), ("fp8", 1, 2.0**-4)]
)
def test_smaller_formats_take_less_and_round_to_their_precision(dtype, bytes_of_number, largest_error):
    tensor = torch.rand(2, 3, 64) + 1.0
    kept = Storage(dtype).keep(tensor)
    whole = kept.whole()
    assert whole.dtype == torch.float32
    assert ((whole - tensor) / tensor).abs().max() <= largest_error
    scales = 2 * 3 * 4 if dtype == "fp8" else 0  # one float32 for each token
    assert kept.nbytes == tensor.numel() * bytes_of_number + scales


def test_fp8_holds_tokens_of_any_size_and_of_zeros():
    tensor = torch.tensor([[[1e6, -5e5], [3e-6, 1e-6], [0.0, 0.0]]])
    whole = Storage("fp8").keep(tensor).whole()
    assert torch.allclose(whole, tensor, rtol=0.07, atol=0.0)


def test_fp8_gives_bf16_back_to_a_bf16_model():
    tensor = torch.randn(1, 2, 8, dtype=torch.bfloat16)
    assert Storage("fp8").keep(tensor).whole().dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("compute", "dtype", "bytes_of_number"),
    [(torch.float32, "compute", 2), (torch.bfloat16, "compute", 1), (torch.float32, "bf16", 1)],
)
def test_changes_are_kept_in_half_the_width(compute, dtype, bytes_of_number):
    change = (torch.rand(1, 2, 64) + 1.0).to(compute)
    kept = Storage(dtype).keep_change(change)
    assert kept.data.element_size() == bytes_of_number
    assert ((kept.whole() - change) / change).abs().max() <= 2.0**-4
