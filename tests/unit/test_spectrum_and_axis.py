import math

import numpy as np
import pytest
import torch

from comfyui_omnicache.omnicache.correction import Correction, Corrector, Gamma
from comfyui_omnicache.omnicache.noise_axis import log_snr, positions, step_lengths
from comfyui_omnicache.omnicache.spectrum import (
    BandProducts,
    apply_response,
    band_responses,
    grid_of,
    low_pass_response,
)


def wave(size: int, cycles: int) -> torch.Tensor:
    return torch.cos(2 * math.pi * cycles * torch.arange(size) / size).expand(size, size).clone()


def test_the_low_pass_halves_a_wave_at_its_cutoff():
    response = low_pass_response((32, 32), cutoff=0.25)
    assert torch.allclose(apply_response(wave(32, 8), response), 0.5 * wave(32, 8), atol=1e-5)


def test_the_low_pass_keeps_the_mean_and_drops_fine_detail():
    response = low_pass_response((32, 32), cutoff=0.05)
    filtered = apply_response(3.0 + wave(32, 16), response)
    assert torch.allclose(filtered, torch.full_like(filtered, 3.0), atol=1e-3)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (64, 11), (50,), (5, 8, 6)])
def test_the_bands_add_up_to_everything_and_each_is_whole_in_its_middle(size):
    responses = band_responses(size)
    assert torch.allclose(responses.sum(0), torch.ones(responses.shape[1:]))
    assert responses.min() >= 0 and responses[0].flatten()[0] == 1.0
    # 0.15 cycles per pixel is the middle of the third band, 0.1 to 0.2.
    assert band_responses((40, 40))[2, 6, 0].item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (6, 11), (12,), (13,), (3, 8, 5)])
def test_band_products_add_up_to_the_plain_inner_product(size):
    a, b = torch.randn(2, 3, *size), torch.randn(2, 3, *size)
    products = BandProducts(size)
    total = products.between(products.spectrum(a), products.spectrum(b)).sum()
    assert total.item() == pytest.approx((a.double() * b.double()).sum().item(), rel=1e-4, abs=1e-4)


def test_a_wave_lies_in_the_band_of_its_frequency():
    products = BandProducts((32, 32))
    spectrum = products.spectrum(wave(32, 8)[None])  # 0.25 cycles per pixel: the fourth band, 0.2 to 0.35
    energies = products.between(spectrum, spectrum)
    assert energies[3].item() == pytest.approx(512.0) and energies.sum().item() == pytest.approx(512.0)


def test_a_grid_is_height_and_width_and_of_sound_the_length():
    assert grid_of((2, 16, 24, 32)) == (24, 32) and grid_of((2, 16, 9, 24, 32)) == (24, 32)
    assert grid_of((2, 64, 100)) == (100,)


@pytest.mark.parametrize("kept, cycles", [("low", 2), ("high", 16)])
def test_sound_is_filtered_along_time_and_its_channels_stay_apart(kept, cycles):
    length, sigma = 40, torch.ones(1, 1, 1)
    flat, sound = torch.ones(1, 3, length), torch.zeros(1, 3, length)
    # Only one channel has a wave: filtered over the channels, it would get into the others.
    sound[:, 1] = torch.cos(2 * math.pi * cycles * torch.arange(length) / length)
    corrector = Corrector(Correction("age-aware", kept, cutoff=0.15), [1.0, 0.5, 0.0], None, 0.5, [0, 1, 2])
    filtered = [corrector.apply(torch.zeros_like(x), x, Gamma(1.0), sigma, 1) for x in (sound, flat)]
    assert torch.allclose(filtered[0], sound, atol=0.06)
    assert torch.allclose(filtered[1], flat if kept == "low" else torch.zeros_like(flat), atol=1e-5)


def test_the_last_band_of_sound_ends_at_half_a_cycle():
    assert band_responses((40,))[4, -1].item() == 1.0  # 0.35 to 0.5, with its middle at 0.425


def test_a_step_is_as_long_as_an_error_of_its_output_moves_the_state_beside_its_size():
    sigmas = [157.0, 129.0, 0.2, 0.1, 0.0]
    assert step_lengths([1.0, 0.7, 0.0], "flow").tolist() == pytest.approx([0.3, 0.7])
    # Far above 1 the ratio of the sigmas counts, log(157 / 129); far below 1 their difference.
    assert step_lengths(sigmas, "other")[[0, 2, 3]] == pytest.approx([0.196, 0.099, 0.1], abs=1e-3)


def test_log_snr_of_a_flow_is_zero_halfway():
    assert log_snr([0.5], "flow")[0] == 0.0
    assert log_snr([1.0], "other")[0] == 0.0


def test_a_schedule_lies_on_its_own_steps():
    grid = np.array([0.99, 0.8, 0.5, 0.2, 0.01])
    assert np.allclose(positions(grid, grid, "flow"), np.arange(5))
    assert positions([0.65], grid, "flow")[0] == pytest.approx(1.5, abs=0.15)
    assert positions([0.999], grid, "flow")[0] == 0.0
