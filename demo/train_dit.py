"""Trains the class-conditional demo model from nothing: python demo/train_dit.py. Safe to stop and go on.

A DiT as its paper has it (diffusers' DiTTransformer2DModel: class labels, noise prediction, linear betas), on
the pictures of the image model, saved in the layout of diffusers. A class is an object; the ground's colour
is left to the noise.
"""

import argparse
from pathlib import Path

import train as base  # isort: skip  # first, since it makes the host's modules importable

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

import data

FOLDER = base.ROOT / "demo" / "models" / "diffusers" / "omnicache_demo_image_dit"
OBJECTS = tuple(data.OBJECTS)
NO_CLASS = len(OBJECTS)  # the label that guidance leads away from
BATCH, STEPS, RATE = 48, 7500, 1.5e-3
LARGEST_WEIGHT = 25.0
EMA_DECAY = 0.997
GRID_STEPS, CFG = 20, 2.5  # of the pictures to look at


def build() -> DiTTransformer2DModel:
    """The library's model at small size, freshly initialised; blocks start as identities, as in the paper."""
    net = DiTTransformer2DModel(
        num_attention_heads=3, attention_head_dim=64, num_layers=4, in_channels=16, out_channels=16,
        sample_size=16, patch_size=2, num_embeds_ada_norm=len(OBJECTS),
    )  # fmt: skip
    for block in net.transformer_blocks:
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
        # Nearly closed gates, not closed ones: zeros would fill the first steps with denormal numbers.
        block.norm1.linear.weight.data.mul_(0.05)
        nn.init.zeros_(block.norm1.linear.bias)
        block.attn1.set_processor(AttnProcessor())  # twice as fast as the fused one on a CPU in bfloat16
    for last in (net.proj_out_1, net.proj_out_2):
        last.weight.data.mul_(0.05)
        nn.init.zeros_(last.bias)
    return net


def scheduler() -> DDIMScheduler:
    """The noise schedule of the paper: 1000 linear betas from 1e-4 to 0.02, the noise is predicted."""
    return DDIMScheduler(clip_sample=False, set_alpha_to_one=False)


def loss_of(net: nn.Module, latents: Tensor, labels: Tensor, seed: int, step: int) -> Tensor:
    """Of the noise, weighted as if v were predicted (Salimans and Ho, arXiv 2202.00512, appendix D): where
    there is much noise, a small error of the noise is a large one of the picture, and pictures fall apart.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    count = len(latents)
    noise = torch.randn(latents.shape, generator=generator)
    # one time from each of equal parts of the schedule: less chance between batches
    times = ((torch.arange(count) + torch.rand(count, generator=generator)) * 1000 / count).long()
    dropped = torch.rand(count, generator=generator) < base.DROPPED_PROMPTS
    labels = torch.where(dropped, NO_CLASS, labels)
    steps = scheduler()
    noisy = steps.add_noise(latents, noise, times)
    out = net(noisy.to(net.device), times.to(net.device), labels.to(net.device)).sample
    weights = (1 / steps.alphas_cumprod[times]).clamp(max=LARGEST_WEIGHT).to(net.device)
    return (weights * (out.float() - noise.to(net.device)).square().mean((1, 2, 3))).mean() / weights.mean()


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for the matrices of the blocks, in
    single precision and at AdamW's size of step (Liu et al., arXiv 2502.16982), and AdamW for all else."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        matrices, others = [], []
        for name, parameter in net.named_parameters():
            is_matrix = parameter.ndim == 2 and "transformer_blocks" in name and "embedding_table" not in name
            (matrices if is_matrix else others).append(parameter)
        groups = [{"params": matrices, "is_muon": True}, {"params": others, "is_muon": False}]
        super().__init__(groups, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"] if group["is_muon"] else ():
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 0.05)
                change = orthogonal(parameter.grad.lerp(momentum, 0.95))
                parameter.add_(change, alpha=-0.2 * max(parameter.shape) ** 0.5 * group["lr"])
                parameter.grad = None  # so that AdamW leaves it alone
        super().step()


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest orthogonal matrix, by the Newton-Schulz iteration of the Muon authors."""
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(iterations):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if is_tall else x


@torch.no_grad()
def sample(net: nn.Module, labels: Tensor, seed: int) -> Tensor:
    """DDIM with guidance, only to look at while training. Returns latents."""
    steps = scheduler()
    steps.set_timesteps(GRID_STEPS)
    x = torch.randn(len(labels), 16, 16, 16, generator=torch.Generator().manual_seed(seed))
    both = torch.cat((labels, torch.full_like(labels, NO_CLASS)))
    for time_ in steps.timesteps:
        with_class, without = net(torch.cat((x, x)), time_.expand(len(both)), both).sample.float().chunk(2)
        x = steps.step(without + CFG * (with_class - without), time_, x).prev_sample
    return x


def save_grid(net: nn.Module, codec: base.Codec, path: Path) -> None:
    from PIL import Image

    with base.bfloat16_where_fast("cpu"):
        latents = sample(net, torch.arange(32) % len(OBJECTS), seed=5)
    pictures = ((codec.decode(latents) + 1) * 127.5).round().byte().numpy()
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in pictures.reshape(4, 8, 64, 64, 3)])
    Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2), Image.NEAREST).save(path)


def train(steps: int, rate: float, seed: int, seconds: float, out: Path) -> None:
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    codec = base.Codec.load()
    net = build().to(device).eval()  # in training mode each block would drop labels of its own
    optimizer = Muon(net, rate)
    weights = out / "transformer" / "diffusion_pytorch_model.safetensors"
    progress = base.Progress(net, optimizer, base.RUNS / "dit.pt", weights)
    net.save_config(weights.parent)
    scheduler().save_config(out / "scheduler")
    log = base.LossLog(base.RUNS / "dit.jsonl")
    count = sum(parameter.numel() for parameter in net.parameters())
    print(f"{count / 1e6:.2f} M parameters, {steps} steps of {BATCH}, {device}", flush=True)

    def one_step(step: int) -> float:
        pictures, words = data.batch("image", seed, step, BATCH)
        labels = torch.tensor([OBJECTS.index(name) for name, _ in words])
        with base.bfloat16_where_fast(device.type):
            loss = loss_of(net, base.latents_of(codec, "image", pictures), labels, seed, step)
        progress.update(loss, rate * base.rate_at(step, steps), min(EMA_DECAY, (step + 1) / (step + 10)))
        return loss.item()

    def show() -> None:
        averaged = build().eval()
        weights_now = {name: tensor.cpu() for name, tensor in progress.ema.items()}
        averaged.load_state_dict(weights_now, strict=False)  # but for tables that are computed
        save_grid(averaged, codec, base.RUNS / "dit.png")

    base.run(progress, log, steps, seconds, one_step, show)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    base.add_run_arguments(parser, STEPS, RATE)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(base.arguments)
    torch.set_num_threads(options.threads)
    train(options.steps, options.rate, options.seed, options.seconds, options.out)


if __name__ == "__main__":
    main()
