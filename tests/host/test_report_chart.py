"""The picture of a report, by its pixels."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

from comfyui_omnicache.nodes.report_chart import FULL, HEAT, PANEL, PLAIN, REUSED, WIDTH, Pictures, draw

BELOW_LEGEND = slice(-PANEL - 114, None)


def run(milliseconds: list[float], kinds: str, **changes) -> dict:
    full = kinds.count("F")
    return {
        "full_steps": full, "full": 2 * full, "asked": 2 * len(kinds), "cache_megabytes": 1.0,
        "step_kinds": ["full" if kind == "F" else "reuse" for kind in kinds],
        "step_milliseconds": milliseconds, "steps_seconds": sum(milliseconds) / 1000, "seconds": 1.0,
        "estimated_uncached_seconds": 2.0, "equal_time_steps": 3, "this_prompt": True, "finished": True,
        "repaid": [0.0] * len(kinds),
        "notes": {}, "why_full": None, "drifted_steps": 0, "drift": None, "profile": None,
        "family": "sd3", "sampler": "euler", "ended": "2026-01-01T00:00:00+00:00", **changes,
    }  # fmt: skip


def facts(*runs: dict, frames: int = 1) -> dict:
    likeness = {"psnr": 20.0, "ssim": 0.5, "psnr_of_each": [20.0] * frames, "ssim_of_each": [0.5] * frames}
    return {
        "pack": "a", "host": "b", "torch": "c", "device": "d", "runs": runs, "with_cache": likeness,
        "equal_time": likeness, "remarks": [],
    }  # fmt: skip


def pixels_of(chart: torch.Tensor, colour: str | tuple) -> np.ndarray:
    """(height, width) where the chart has this colour."""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return ((chart[0] * 255).round().byte().numpy() == np.array(wanted)).all(-1)


def bar_heights(chart: torch.Tensor, colour: str) -> list[int]:
    """Of the bars of one colour, from left to right."""
    columns = pixels_of(chart, colour)[BELOW_LEGEND].sum(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns > 2, [0]]).astype(int)))
    return [int(columns[start:end].max()) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def test_each_step_is_a_bar_as_high_as_its_time():
    heights = bar_heights(draw(facts(run([100, 50, 75], "FFF")), None), FULL)
    assert len(heights) == 3
    assert [height / heights[0] for height in heights] == pytest.approx([1, 0.5, 0.75], abs=0.02)
    chart = draw(facts(run([100, 100, 100, 100], "FFrF")), None)
    assert len(bar_heights(chart, FULL)) == 3
    assert pixels_of(chart, REUSED)[BELOW_LEGEND].any(0).sum() == pytest.approx(WIDTH / 4, rel=0.2)


def test_a_first_step_that_warms_up_does_not_flatten_the_others():
    slow, plain = (bar_heights(draw(facts(run([first, 50, 50], "FFF")), None), FULL) for first in (5000, 50))
    assert slow[1:] == plain[1:]
    assert slow[1] > PANEL / 2


def test_a_step_that_put_something_right_has_a_dot_in_its_bar():
    times, white = [100, 100, 100, 100], ImageColor.getrgb("#ffffff")

    def whites_in_bars(repaid: list[float]) -> int:
        chart = draw(facts(run(times, "FFrF", repaid=repaid)), None)
        bars = pixels_of(chart, FULL)[BELOW_LEGEND]
        inside = np.maximum.accumulate(bars, 0) & np.maximum.accumulate(bars[::-1], 0)[::-1]
        return int((inside & pixels_of(chart, white)[BELOW_LEGEND]).sum())

    assert whites_in_bars([0, 0, 0, 0]) == 0
    assert whites_in_bars([0, 0, 0, 0.01]) == pytest.approx(np.pi * 3.5**2, rel=0.4)


def test_what_went_otherwise_is_written_in_another_colour():
    assert not pixels_of(draw(facts(run([1, 1], "Fr")), None), PLAIN).any()
    drifted = {"drifted_steps": 2, "drift": 4.0}
    others = {"this_prompt": False}, {"finished": False}, {"notes": {"a": 1}}, {"why_full": "a"}
    for unusual in (drifted, *others):
        assert pixels_of(draw(facts(run([1, 1], "Fr", **unusual)), None), PLAIN).any(), unusual
    assert pixels_of(draw({**facts(), "remarks": ["a"]}, None), PLAIN).any()


def test_a_run_without_times_is_drawn_without_bars():
    chart = draw(facts(run([], "Fr", finished=False, equal_time_steps=None)), None)
    assert not pixels_of(chart, FULL).any()


@pytest.mark.parametrize("size", [(16, 16), (700, 900), (2000, 64)])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_map_is_bright_where_a_picture_differs(size, frames):
    """One half of the last frame is a little brighter, by the end of the scale."""
    reference = torch.full((frames, *size, 3), 0.4)
    images = reference.clone()
    images[-1, :, : size[1] // 2] += 0.1
    given = facts(run([1, 1], "Fr"), frames=frames)
    given["with_cache"]["psnr_of_each"] = [20.0 + frames - frame for frame in range(frames)]
    chart = draw(given, Pictures(reference, images))
    bright, dark = (pixels_of(chart, tuple(HEAT[place].astype(int))).sum() for place in (-1, 0))
    assert bright == pytest.approx(dark, rel=0.1) and bright > 1000
    with_control = draw(given, Pictures(reference, images, reference))
    assert with_control.shape[1] > chart.shape[1]
    assert pixels_of(with_control, tuple(HEAT[0].astype(int))).sum() == pytest.approx(3 * dark, rel=0.1)


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels_are_drawn(channels):
    pictures = torch.rand(1, 32, 32, channels)
    assert draw(facts(run([1, 1], "Fr")), Pictures(pictures, pictures)).shape[2:] == (WIDTH, 3)
