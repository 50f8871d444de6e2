"""Distils the image model into a few-step student: python demo/distil.py. Safe to stop and start again.

The student has the teacher's architecture and needs no guidance: 8 to 16 euler steps at cfg 1 stand for the
teacher's 50"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import train as base  # isort: skip  # first, since it makes the host's modules importable

import comfy.model_sampling
import comfy.samplers
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import data

MODEL = "image"
NAME = "omnicache_demo_image_fewstep"
TEACHER = base.WEIGHTS / "omnicache_demo_image.safetensors"
FOLDER = base.RUNS / "fewstep"
CFG = 2.5
GRID = 16  # steps of a recorded trajectory; the states of 8 steps lie on it
ROWS = 48  # trajectories of a chunk, and rows of a batch
CHUNKS = 18
STEPS_PER_CHUNK = 20  # the store of trajectories grows while the student learns
STEPS = 400
RATE = 5e-4
WARM_UP = 50
DECAY = 0.5  # last share of the steps, in which the learning rate falls to 2 %
EMA_DECAY = 0.98
SAVE_EVERY = 180  # seconds
HELD_OUT = 1_000_000  # number of a chunk that is never trained on

Words = list[tuple[str, ...]]
Velocity = Callable[[Tensor, Tensor], Tensor]


def host_sigmas(steps: int) -> Tensor:
    """(steps + 1,) sigmas of the host for SD3 at its shift, scheduler simple."""
    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=base.SETTINGS[MODEL]["shift"])
    return comfy.samplers.calculate_sigmas(sampling, "simple", steps)


def guided(teacher: nn.Module, words: Words) -> Velocity:
    """The teacher's velocity with classifier-free guidance, for euler or any other solver."""

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        both = base.forward(
            teacher, MODEL, torch.cat((x, x)), sigma.expand(2 * len(x)), [*words, *[()] * len(words)]
        )
        with_prompt, without = both.chunk(2)
        return without + CFG * (with_prompt - without)

    return velocity


def unguided(student: nn.Module, words: Words) -> Velocity:
    """The student's velocity, one evaluation."""
    return lambda x, sigma: base.forward(student, MODEL, x, sigma.expand(len(x)), words)


def euler(velocity: Velocity, x: Tensor, sigmas: Tensor) -> Tensor:
    """(steps + 1, rows, 16, 16, 16) states, the first one x itself."""
    states = [x]
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        states.append(states[-1] + (after - sigma) * velocity(states[-1], sigma))
    return torch.stack(states)


def second_order(velocity: Velocity, x: Tensor, sigmas: Tensor) -> Tensor:
    """States as of euler, by the Adams-Bashforth rule of order 2: at 16 steps as good as euler at 24."""
    states, last = [x], None  # last: velocity and step length before
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        v, h = velocity(states[-1], sigma), after - sigma
        slope = torch.zeros_like(v) if last is None else (v - last[0]) / last[1]
        states.append(states[-1] + h * (v + h / 2 * slope))
        last = v, h
    return torch.stack(states)


class Trajectories:
    """The teacher's recorded trajectories, in chunks of ROWS, made when first asked for and kept on disk.

    Prompts and noise of a chunk follow from seed and number.
    """

    def __init__(self, teacher: nn.Module, folder: Path, seed: int) -> None:
        self._teacher, self._folder, self._seed = teacher, folder, seed
        self._chunks: dict[int, tuple[Tensor, Words]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def chunk(self, number: int) -> tuple[Tensor, Words]:
        """(GRID + 1, ROWS, 16, 16, 16) states from noise to sample, and the prompts."""
        if number not in self._chunks:
            rng = np.random.default_rng((self._seed, number))
            words = [data.random_words(MODEL, rng) for _ in range(ROWS)]
            path = self._folder / f"trajectories-{self._seed}-{number}.safetensors"
            if not path.exists():
                save_file({"states": self._record(number, words)}, f"{path}.part")
                os.replace(f"{path}.part", path)
            self._chunks[number] = load_file(path)["states"], words
        return self._chunks[number]

    @torch.no_grad()
    def _record(self, number: int, words: Words) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        noise = torch.randn(ROWS, 16, 16, 16, generator=generator)
        device = next(self._teacher.parameters()).device
        velocity, sigmas = guided(self._teacher, words), host_sigmas(GRID).to(device)
        return second_order(velocity, noise.to(device), sigmas).cpu()

    def draw(self, count: int, chunks: int, rng: np.random.Generator) -> tuple[Tensor, Words]:
        """(GRID + 1, count, 16, 16, 16) states of trajectories from the first chunks, and their prompts."""
        states, words = [], []
        for _ in range(count):
            from_states, from_words = self.chunk(int(rng.integers(chunks)))
            row = int(rng.integers(ROWS))
            states.append(from_states[:, row])
            words.append(from_words[row])
        return torch.stack(states, dim=1), words


def chord_loss(student: nn.Module, states: Tensor, words: Words, rng: np.random.Generator) -> Tensor:
    """The student's velocity against (x_j - x_i) / (sigma_j - sigma_i) of its trajectory, j = i + 1 or 2."""
    device = next(student.parameters()).device
    rows = torch.arange(len(words))
    i = torch.from_numpy(rng.integers(GRID, size=len(words)))
    j = (i + torch.from_numpy(rng.integers(1, 3, size=len(words)))).clamp_max(GRID)
    sigmas = host_sigmas(GRID)
    x, after = states[i, rows], states[j, rows]
    target = (after - x) / (sigmas[j] - sigmas[i]).view(-1, 1, 1, 1)
    velocity = base.forward(student, MODEL, x.to(device), sigmas[i].to(device), words)
    return (velocity - target.to(device)).square().mean()


@torch.no_grad()
def agreement(student: nn.Module, trajectories: Trajectories, codec: base.Codec, steps: int) -> float:
    """PSNR in dB of the student's pictures to the teacher's from the same noise, on trajectories held out."""
    states, words = trajectories.chunk(HELD_OUT)
    sample = euler(unguided(student, words), states[0], host_sigmas(steps))[-1]
    pictures, reference = ((codec.decode(x) + 1) / 2 for x in (sample, states[-1]))
    errors = (pictures - reference).square().flatten(1).mean(1)
    return (-10 * errors.log10()).mean().item()


def distil(steps: int, rate: float, seed: int, seconds: float, out: Path) -> None:
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher, student = base.build(MODEL), base.build(MODEL)
    for net in (teacher, student):
        net.load_state_dict(load_file(TEACHER))
        net.to(device)
    trajectories = Trajectories(teacher.eval().requires_grad_(False), FOLDER, seed)
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    progress = base.Progress(student, optimizer, FOLDER / "fewstep.pt", out)
    log = base.LossLog(FOLDER / "fewstep.jsonl")
    codec = base.Codec.load()

    def report() -> None:
        net = progress.averaged(MODEL)
        values = {count: agreement(net, trajectories, codec, count) for count in (8, 16)}
        line = ", ".join(f"{value:.1f} dB at {count} steps" for count, value in values.items())
        print(f"step {progress.step}: held-out samples as the teacher's to {line}", flush=True)

    def one_step(step: int) -> float:
        rng = np.random.default_rng((seed, step, 1))
        chunks = min(CHUNKS, 1 + step // STEPS_PER_CHUNK)
        states, words = trajectories.draw(ROWS, chunks, rng)
        loss = chord_loss(student, states, words, rng)
        share = base.rate_at(step, steps, WARM_UP, DECAY)
        progress.update(loss, rate * share, min(EMA_DECAY, (step + 1) / (step + 10)))
        return loss.item()

    base.run(progress, log, steps, seconds, one_step, report, SAVE_EVERY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    base.add_run_arguments(parser, STEPS, RATE)
    parser.add_argument("--out", type=Path, default=base.WEIGHTS / f"{NAME}.safetensors")
    options = parser.parse_args(base.arguments)
    torch.set_num_threads(options.threads)
    distil(options.steps, options.rate, options.seed, options.seconds, options.out)


if __name__ == "__main__":
    main()
