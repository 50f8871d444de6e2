"""Draws the picture of a report: a bar for each step, and how like the uncached pictures the others are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..omnicache.similarity import MOST_DECIBELS, difference

WIDTH, MARGIN = 1200, 40
INNER = WIDTH - 2 * MARGIN
GAP = 24
PANEL = 200  # height of a plot without its labels
AXIS = 64  # room left of a plot for its numbers
TALLEST_PICTURE = 480

BLACK, GREY, PALE, WHITE = "#1a1a1a", "#5f5f5f", "#dcdcdc", "#ffffff"
FULL, REUSED = "#0072B2", "#E69F00"  # told apart with any colour vision; reused is hatched too
HATCH = "#8a5f00"
CACHED, PLAIN = FULL, "#D55E00"

OUTLIER = 3.0  # a step so many times the median is drawn cut off, or it would flatten all others
HEAT = np.array(  # of no difference, then up to the scale's end: dark to light, as matplotlib's inferno
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64
)
HEAT_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHARE_WITHIN_SCALE = 0.995  # of the pixels; a few brighter ones may exceed it


@dataclass(frozen=True)
class Pictures:
    """(frames, height, width, channels) each, in 0..1. equal_time: made by fewer steps without a cache."""

    reference: Tensor
    images: Tensor
    equal_time: Tensor | None = None


@cache
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


class _Page:
    """A white page that grows downwards. y: where the next thing goes."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, 400), WHITE)
        self.draw = ImageDraw.Draw(self.image)
        self.y = MARGIN - 8

    def reserve(self, height: int) -> int:
        """The top of a new strip of the page, of this height in pixels."""
        top = self.y
        self.y += height
        if self.y + MARGIN > self.image.height:
            taller = Image.new("RGB", (WIDTH, self.y + 400), WHITE)
            taller.paste(self.image)
            self.image, self.draw = taller, ImageDraw.Draw(taller)
        return top

    def line(self, text: str, size: int = 18, colour: str = BLACK, gap: int = 6) -> None:
        """Text, broken between words where it is wider than the page."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.draw.textlength(longer, _font(size)) > INNER:
                lines.append(word)
            else:
                lines[-1] = longer
        for line in lines:
            top = self.reserve(size + gap)
            self.draw.text((MARGIN, top), line, colour, _font(size))

    def text(self, x: float, y: float, text: str, anchor: str, colour: str = GREY, size: int = 15) -> None:
        self.draw.text((x, y), text, colour, _font(size), anchor=anchor)

    def as_images(self) -> Tensor:
        """(1, height, width, 3) in 0..1, as the host's IMAGE."""
        pixels = np.asarray(self.image.crop((0, 0, WIDTH, self.y + MARGIN - GAP)), dtype=np.float32)
        return torch.from_numpy(pixels / 255)[None]


def draw(facts: dict, pictures: Pictures | None) -> Tensor:
    """The report as a picture, (1, height, width, 3) in 0..1. facts: the report's JSON."""
    page = _Page()
    page.line("OmniCache report", 30, gap=12)
    for run in facts["runs"]:
        _run(page, run)
    for remark in facts["remarks"]:
        page.line(remark, colour=PLAIN)
    if pictures is not None:
        _likeness(page, facts, pictures)
    page.line(f"{facts['pack']} · {facts['host']} · torch {facts['torch']} · {facts['device']}", 15, GREY)
    return page.as_images()


def _run(page: _Page, run: dict) -> None:
    """What one sampling run did, in words and as bars."""
    page.line(_headline(run), 22, gap=8)
    if run["why_full"] is None and run["equal_time_steps"] is not None:
        page.line(
            f"{run['steps_seconds']:.2f} s for the steps. Without reuse, estimated from the median computed "
            f"step: {run['estimated_uncached_seconds']:.2f} s. In the same time: about "
            f"{run['equal_time_steps']} plain steps."
        )
    if any(run["repaid"]):
        page.line(_repaid(run["repaid"]))
    for remark in _remarks(run):
        page.line(remark, colour=PLAIN)
    profile = f" · profile {run['profile']['name']}" if run["profile"] else ""
    page.line(
        f"{run['family']} · {run['sampler']}{profile} · {run['seconds']:.2f} s with loading · ended "
        f"{run['ended'].replace('T', ' ').replace('+00:00', ' UTC')}",
        15, GREY, gap=12,
    )  # fmt: skip
    if run["step_milliseconds"]:
        is_full = [kind == "full" for kind in run["step_kinds"]]
        _bars(page, run["step_milliseconds"], is_full, run["repaid"])


def _headline(run: dict) -> str:
    if run["why_full"] is not None:
        return "Nothing was reused in this run"
    return (
        f"Computed {run['full_steps']} of {len(run['step_kinds'])} steps, {run['full']} of {run['asked']} "
        f"evaluations; {run['cache_megabytes']:.1f} MB of cache"
    )


def _repaid(shares: Sequence[float]) -> str:
    """What was put right, in shares of the state's size, one for each step."""
    paid = [share for share in shares if share]
    largest = max(paid)
    return (
        f"Put right at {len(paid)} of the computed steps: {100 * sum(paid) / len(paid):.2g} % of the state "
        f"on average, at most {100 * largest:.2g} % (step {shares.index(largest)})."
    )


def _remarks(run: dict) -> list[str]:
    """Whatever the numbers do not show."""
    remarks = [_as_sentence(run["why_full"])] if run["why_full"] else []
    remarks += [] if run["this_prompt"] else ["From an earlier prompt: the sampler did not run again."]
    remarks += [] if run["finished"] else ["The run stopped before its end."]
    remarks += [_as_sentence(f"{reason} ({times}x)") for reason, times in run["notes"].items()]
    if run["drifted_steps"]:
        remarks.append(
            f"{run['drifted_steps']} steps more than planned were computed: reuse disturbed this run up to "
            f"{run['drift']:.1f} times as much as the calibration."
        )
    return remarks


def _as_sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bars(
    page: _Page, milliseconds: Sequence[float], is_full: Sequence[bool], repaid: Sequence[float]
) -> None:
    """One bar a step. repaid: what it put right of the steps before; a dot in the bar."""
    dot = [("computed, with repay", FULL, False)] if any(repaid) else []
    legend = _legend(page, [("computed", FULL, False), ("reused", REUSED, True), *dot])
    if dot:
        _dot(page, legend[-1] + 7.5, page.y - 16)
    top = page.reserve(PANEL + 50)
    bottom, left = top + PANEL, MARGIN + AXIS
    middle = float(np.median([each for each, full in zip(milliseconds, is_full, strict=True) if full] or [0]))
    shown = [each for each in milliseconds if each <= OUTLIER * middle] or milliseconds
    highest = _axis(page, top, left, INNER - AXIS, max(shown) * 1.12, "ms")
    pitch = (INNER - AXIS) / len(milliseconds)
    every = max(1, round(_nice_step(len(milliseconds) * 30 / (INNER - AXIS))))
    for step, (each, full) in enumerate(zip(milliseconds, is_full, strict=True)):
        inset = 1 if pitch > 5 else 0
        start = round(left + step * pitch) + inset
        x = (start, max(start, round(left + (step + 1) * pitch) - inset - 1))
        y = bottom - round(PANEL * min(each / highest, 1.0))
        page.draw.rectangle((x[0], min(y, bottom - 1), x[1], bottom - 1), FULL if full else REUSED)
        if not full:
            _hatch(page, (x[0], min(y, bottom - 1), x[1] + 1, bottom))
        if repaid[step] and pitch > 5:
            _dot(page, (x[0] + x[1]) / 2, bottom - 10)
        if each > highest:
            page.draw.line((x[0], top + 16, x[1], top + 8), WHITE, 4)
            page.text(max(x[1] + 5, left + 4), top + 10, f"{each:.0f} ms", "lm", BLACK)
        if step % every == 0:
            page.text((x[0] + x[1]) / 2, bottom + 6, str(step), "mt")
    page.text(left + (INNER - AXIS) / 2, bottom + 25, "step", "mt")
    page.reserve(GAP)


def _dot(page: _Page, x: float, y: float) -> None:
    page.draw.ellipse((x - 3, y - 3, x + 3, y + 3), WHITE)


def _legend(page: _Page, entries: Sequence[tuple[str, str, bool]]) -> list[int]:
    """Coloured squares with names: (name, colour, hatched). Returns where each square begins."""
    top, x, starts = page.reserve(26), MARGIN + AXIS, []
    for name, colour, is_hatched in entries:
        starts.append(x)
        page.draw.rectangle((x, top + 2, x + 15, top + 17), colour)
        if is_hatched:
            _hatch(page, (x, top + 2, x + 16, top + 18))
        page.text(x + 23, top + 10, name, "lm", BLACK)
        x += 23 + int(page.draw.textlength(name, _font(15))) + 30
    return starts


def _hatch(page: _Page, box: tuple[int, int, int, int]) -> None:
    """Diagonal lines over a rectangle, (left, top, right, bottom)."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return
    tile = page.image.crop(box)
    pen = ImageDraw.Draw(tile)
    # In steps of the page, so that the hatching goes on from bar to bar.
    for offset in range(-(bottom - top) - (left + bottom) % 7, right - left + 7, 7):
        pen.line((offset, bottom - top, offset + bottom - top, 0), HATCH, 1)
    page.image.paste(tile, (left, top))


def _axis(
    page: _Page, top: int, left: int, width: int, largest: float, unit: str, smallest: float = 0.0
) -> float:
    """Grid lines and numbers of a plot; returns the value at its top."""
    step = _nice_step((largest - smallest) / 8)
    largest = max(largest, smallest + step)
    value = math.ceil(smallest / step - 1e-9) * step
    while value <= largest + 1e-9:
        y = top + PANEL - round(PANEL * (value - smallest) / (largest - smallest))
        page.draw.line((left, y, left + width, y), PALE)
        page.text(left - 8, y, f"{value:.4g}", "rm")
        value += step
    page.text(left - 8, top - 18, unit, "rm")
    return largest


def _nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least so much."""
    if not least > 0:
        return 1
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _likeness(page: _Page, facts: dict, pictures: Pictures) -> None:
    """How like the reference the pictures are: in numbers, frame by frame, and as maps."""
    compared = [("with the cache", CACHED, pictures.images, facts["with_cache"])]
    if pictures.equal_time is not None:
        compared.append(("fewer plain steps", PLAIN, pictures.equal_time, facts["equal_time"]))
    page.line("Compared with the reference", 22, gap=8)
    for name, _, _, likeness in compared:
        page.line(f"{name.capitalize()}: {_in_words(likeness)}")
    if pictures.equal_time is None:
        page.line(_how_to_control(facts["runs"]), 15, GREY)
    page.reserve(8)
    frames = len(pictures.images)
    worst = min(range(frames), key=lambda frame: facts["with_cache"]["psnr_of_each"][frame])
    if frames > 1:
        _curves(page, [(name, colour, likeness) for name, colour, _, likeness in compared])
        page.line(f"Number {worst} in the batch, which reuse changed most:", gap=10)
    _maps(page, pictures.reference[worst], [(name, images[worst]) for name, _, images, _ in compared])


def _how_to_control(runs: Sequence[dict]) -> str:
    """How to see beside it what fewer steps without a cache give in the same time."""
    steps = runs[0]["equal_time_steps"] if len(runs) == 1 else None
    how_many = f"{steps} steps" if steps is not None else "fewer steps"
    return (
        f"Would fewer plain steps do as well in the same time? Sample with {how_many} on the model without "
        "OmniCache, all else the same, and connect the decoded result to equal_time."
    )


def _in_words(likeness: dict) -> str:
    words = f"PSNR {likeness['psnr']:.2f} dB, SSIM {likeness['ssim']:.4f}"
    each = likeness["psnr_of_each"], likeness["ssim_of_each"]
    if len(each[0]) == 1:
        return words
    return f"{words} (means of {len(each[0])}; least {min(each[0]):.2f} dB and {min(each[1]):.4f})"


def _curves(page: _Page, compared: Sequence[tuple[str, str, dict]]) -> None:
    """PSNR and SSIM of each picture or frame, side by side. compared: (name, colour, likeness)."""
    _legend(page, [(name, colour, False) for name, colour, _ in compared])
    page.reserve(22)
    top = page.reserve(PANEL + 50)
    width = (INNER - GAP) // 2 - AXIS
    plots = (("psnr_of_each", "dB", MOST_DECIBELS), ("ssim_of_each", "SSIM", 1.0))
    for place, (key, unit, most) in enumerate(plots):
        left = MARGIN + AXIS + place * (width + AXIS + GAP)
        values = [value for _, _, likeness in compared for value in likeness[key]]
        room = max(0.15 * (max(values) - min(values)), 0.005 * abs(max(values)), 1e-4)
        smallest = min(values) - room
        largest = _axis(page, top, left, width, min(max(values) + room, most), unit, smallest)
        frames = len(compared[0][2][key])
        for number, (_, colour, likeness) in enumerate(compared):
            points = [
                (
                    left + 8 + (width - 16) * frame / (frames - 1),
                    top + PANEL - PANEL * (value - smallest) / (largest - smallest),
                )
                for frame, value in enumerate(likeness[key])
            ]
            page.draw.line(points, colour, 3, joint="curve")
            for x, y in points if frames <= 60 else ():
                mark = (x - 4, y - 4, x + 4, y + 4)
                page.draw.rectangle(mark, colour) if number else page.draw.ellipse(mark, colour)
        for frame in range(0, frames, max(1, round(_nice_step(frames * 40 / width)))):
            page.text(left + 8 + (width - 16) * frame / (frames - 1), top + PANEL + 6, str(frame), "mt")
        page.text(left + width / 2, top + PANEL + 25, "number in the batch", "mt")
    page.reserve(GAP)


def _maps(page: _Page, reference: Tensor, compared: Sequence[tuple[str, Tensor]]) -> None:
    """A row for each compared picture (height, width, channels): the reference, it, and the difference."""
    differences = [difference(image, reference) for _, image in compared]
    most = max(float(np.quantile(each.numpy(), SHARE_WITHIN_SCALE)) for each in differences)
    scale = next((each for each in HEAT_SCALES if each >= most), 1.0)
    height, width = reference.shape[:2]
    shrink = min((INNER - 2 * GAP) / 3 / width, TALLEST_PICTURE / height)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    for (name, image), map_ in zip(compared, differences, strict=True):
        titles = ("reference", name, "largest difference of a channel")
        shown = (_picture(reference), _picture(image), _heat(map_ / scale))
        top = page.reserve(size[1] + 24 + 12)
        for column, (title, picture) in enumerate(zip(titles, shown, strict=True)):
            left = MARGIN + column * (size[0] + GAP)
            page.text(left, top + 2, title, "lt", BLACK)
            # Small pictures are enlarged pixel by pixel: smoothing would hide what is compared.
            how = Image.Resampling.NEAREST if shrink > 1 else Image.Resampling.BOX
            page.image.paste(picture.resize(size, how), (left, top + 24))
    _heat_key(page, MARGIN + 2 * (size[0] + GAP), max(size[0], 220), scale)


def _heat_key(page: _Page, left: int, width: int, scale: float) -> None:
    """What the colours of the difference mean."""
    top = page.reserve(50 + GAP)
    width = min(width, WIDTH - MARGIN - left)
    ramp = torch.linspace(0, 1, width)[None].expand(14, -1)
    page.image.paste(_heat(ramp), (left, top))
    page.text(left, top + 20, "0", "lt")
    page.text(left + width, top + 20, f"{scale:g} or more, of 1", "rt")


def _picture(image: Tensor) -> Image.Image:
    """(height, width, channels) in 0..1, without its transparency."""
    pixels = image[..., :3].expand(*image.shape[:2], 3).mul(255).byte()
    return Image.fromarray(pixels.numpy())


def _heat(values: Tensor) -> Image.Image:
    """(height, width) in 0..1 as colours."""
    places = np.linspace(0, 1, len(HEAT))
    colours = [np.interp(values.numpy(), places, HEAT[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(colours, -1).round().astype(np.uint8))
