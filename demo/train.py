"""Trains a demo model from nothing: python demo/train.py --model image (or video). Safe to stop and start
again.

The models are the host's own architectures at small size, so that the stock loader and samplers take them:
SD3 for pictures, Wan 2.1 for videos. Rectified flow, x = (1 - sigma) x0 + sigma noise, target noise - x0,
time = 1000 sigma.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
HOST = Path(os.environ.get("COMFYUI_PATH", ROOT / ".host" / "ComfyUI"))
sys.path[:0] = [str(HOST), str(ROOT / "demo")]

import comfy.options  # noqa: E402

sys.argv, arguments = sys.argv[:1], sys.argv[1:]
comfy.options.enable_args_parsing()
import comfy.cli_args  # noqa: E402
import torch  # noqa: E402

if not torch.cuda.is_available():
    comfy.cli_args.args.cpu = True

import comfy.ops  # noqa: E402
import numpy as np  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper  # noqa: E402
from comfy.ldm.wan.model import WanModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import data  # noqa: E402
from omnicache_demo import words as vocabulary  # noqa: E402
from omnicache_demo.codec import PATH as CODEC_PATH  # noqa: E402
from omnicache_demo.codec import Codec  # noqa: E402

RUNS = ROOT / ".host" / "train"
WEIGHTS = ROOT / "demo" / "models" / "diffusion_models"
SETTINGS = {
    # shift: of the host's sampling for the family; training times are spread in the same way.
    "image": dict(batch=48, steps=9000, rate=1.2e-3, shift=3.0),
    "video": dict(batch=8, steps=7000, rate=8e-4, shift=5.0),
}
DROPPED_PROMPTS = 0.12  # share trained without a prompt, for classifier-free guidance
WARM_UP = 300
LOG_EVERY = 20
DECAY = 0.25  # last share of the steps, in which the learning rate falls to 2 %
EMA_DECAY = 0.9985


def build(model: str) -> nn.Module:
    """The host's own model at small size, freshly initialised."""
    common = dict(dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init)
    if model == "image":
        net = OpenAISignatureMMDITWrapper(
            input_size=None, patch_size=2, in_channels=16, out_channels=16, depth=3, adm_in_channels=64,
            context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 64,
            "out_features": 192}},
            num_patches=256, pos_embed_max_size=16, qk_norm="rms",
            x_block_self_attn_layers=[0, 1, 2], **common,
        )  # fmt: skip
    else:
        net = WanModel(
            model_type="t2v", patch_size=(1, 2, 2), in_dim=16, out_dim=16, dim=256, ffn_dim=1024,
            freq_dim=256,
            text_dim=4096, num_heads=2, num_layers=5, qk_norm=True, cross_attn_norm=True, eps=1e-6, **common,
        )  # fmt: skip
    for name, parameter in net.named_parameters():
        if parameter.ndim < 2 or name.endswith("modulation"):
            is_scale = (
                "norm" in name and name.endswith("weight") or name.endswith(("ln_q.weight", "ln_k.weight"))
            )
            nn.init.constant_(parameter, 1.0 if is_scale else 0.0)
        else:
            nn.init.xavier_uniform_(parameter.flatten(1))
    for name, parameter in net.named_parameters():
        # Gates and the last layer start almost closed: blocks begin as identities. Not at zero, which would
        # fill the first steps with denormal numbers.
        if any(
            part in name
            for part in ("adaLN_modulation", "time_projection", "final_layer.linear", "head.head")
        ):
            parameter.data.mul_(0.05)
    if model == "image":
        net.pos_embed.copy_(_sine_positions(16, 192))
    return net


def _sine_positions(side: int, width: int) -> Tensor:
    """(1, side * side, width) sine and cosine positions, as SD3 has them."""
    frequency = 1.0 / 10000 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequency
    axis = torch.cat((angles.sin(), angles.cos()), dim=1)  # (side, width / 2)
    across, down = axis[None].expand(side, -1, -1), axis[:, None].expand(-1, side, -1)
    return torch.cat((across, down), dim=2).reshape(1, side * side, width)


def plain_attention(func, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs) -> Tensor:
    """Attention by two matrix products: on a CPU in bfloat16 twice as fast as the fused kernel at these
    sizes."""
    size = q.shape[-1] // heads
    q, k, v = (t.reshape(t.shape[0], -1, heads, size).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * size**-0.5).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # (rows, tokens, heads * size)


def forward(net: nn.Module, model: str, x: Tensor, sigma: Tensor, words: list[tuple[str, ...]]) -> Tensor:
    tokens = torch.from_numpy(np.stack([vocabulary.tokens(each, model) for each in words])).to(x.device)
    options = {"optimized_attention_override": plain_attention}
    if model == "image":
        return net(x, sigma * 1000, context=tokens, y=tokens.sum(1), transformer_options=options)
    return net(x, sigma * 1000, context=tokens, transformer_options=options)


def bfloat16_where_fast(device: str) -> torch.autocast:
    """Autocast to bfloat16, but not on a CPU without instructions for it, where it is 20 times slower."""
    native = ("avx512_bf16", "amx_bf16")
    fast = device != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in native)
    return torch.autocast(device, torch.bfloat16, enabled=fast)


def loss_of(net: nn.Module, model: str, latents: Tensor, words: list, seed: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    time_ = torch.sigmoid(torch.randn(len(latents), generator=generator)).to(latents.device)
    shift = SETTINGS[model]["shift"] ** 0.5  # halfway between the plain and the host's spacing
    sigma = shift * time_ / (1 + (shift - 1) * time_)
    dropped = torch.rand(len(latents), generator=generator) < DROPPED_PROMPTS
    words = [() if drop else each for drop, each in zip(dropped.tolist(), words, strict=True)]
    column = sigma.view(-1, *[1] * (latents.ndim - 1))
    out = forward(net, model, (1 - column) * latents + column * noise, sigma, words)
    return (out.float() - (noise - latents)).square().mean()


def latents_of(codec: Codec, model: str, pictures: np.ndarray) -> Tensor:
    latents = codec.encode(torch.from_numpy(pictures).float() / 127.5 - 1.0)
    return latents if model == "image" else latents.transpose(1, 2)  # (batch, 16, [frames,] h, w)


def codec_for(seed: int) -> Codec:
    """The committed codec, or a newly fitted one where there is none."""
    if not CODEC_PATH.exists():
        pictures = np.concatenate([data.batch("image", seed + 1, number, 64)[0] for number in range(64)])
        CODEC_PATH.parent.mkdir(parents=True, exist_ok=True)
        Codec.fit(torch.from_numpy(pictures).float() / 127.5 - 1.0).save()
    return Codec.load()


@torch.no_grad()
def sample(
    net: nn.Module, model: str, words: list[tuple[str, ...]], steps: int, cfg: float, seed: int
) -> Tensor:
    """Euler with guidance, only to look at while training. Returns latents."""
    shape = (len(words), 16, 16, 16) if model == "image" else (len(words), 16, data.FRAMES, 12, 12)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.linspace(1, 0, steps + 1)
    sigmas = 3 * sigmas / (1 + 2 * sigmas)
    for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        both = forward(net, model, torch.cat((x, x)), now.expand(2 * len(x)), [*words, *[()] * len(words)])
        with_prompt, without = both.float().chunk(2)
        x = x + (after - now) * (without + cfg * (with_prompt - without))
    return x


def save_grid(net: nn.Module, model: str, codec: Codec, path: Path, seed: int = 5) -> None:
    from PIL import Image

    rng = np.random.default_rng(seed)
    words = [data.random_words(model, rng) for _ in range(32 if model == "image" else 8)]
    with bfloat16_where_fast("cpu"):
        latents = sample(net, model, words, 24, 2.5, seed)
    latents = latents if model == "image" else latents.transpose(1, 2)
    pictures = ((codec.decode(latents) + 1) * 127.5).round().byte().numpy()
    rows = pictures.reshape(4, 8, *pictures.shape[1:]) if model == "image" else pictures
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2), Image.NEAREST).save(path)


def export(ema: dict[str, Tensor], buffers: dict[str, Tensor], path: Path) -> None:
    """Writes the averaged weights in half precision, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.half().contiguous() for name, tensor in {**ema, **buffers}.items()}, f"{path}.part"
    )
    os.replace(f"{path}.part", path)


def rate_at(step: int, steps: int, warm_up: int = WARM_UP, decay: float = DECAY) -> float:
    """Share of the full learning rate at a step."""
    left = (steps - step) / (decay * steps)
    return min(1.0, (step + 1) / warm_up, 0.02 + 0.98 * max(left, 0.0))


class Progress:
    """What a training run needs to go on where it stopped: weights, their average, optimizer and step.

    net: the model in training. path: the checkpoint, read at once if it exists. out: where the averaged
    weights go.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, path: Path, out: Path) -> None:
        self.net, self.optimizer, self.path, self.out = net, optimizer, path, out
        self.ema = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        self.step = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            device = next(net.parameters()).device
            state = torch.load(path, map_location=device, weights_only=True)
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
            self.ema, self.step = state["ema"], state["step"]
            print(f"Going on at step {self.step}.", flush=True)

    def update(self, loss: Tensor, rate: float, decay: float) -> None:
        """One step of the optimizer at this learning rate, and the average follows with this decay."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.net.parameters()], 1 - decay)
        self.step += 1

    def save(self) -> None:
        """Writes the checkpoint and the averaged weights."""
        state = {
            "net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": self.ema,
            "step": self.step,
        }  # fmt: skip
        torch.save(state, f"{self.path}.part")
        os.replace(f"{self.path}.part", self.path)
        export(self.ema, dict(self.net.named_buffers()), self.out)

    def averaged(self, model: str) -> nn.Module:
        """A model with the averaged weights, on the CPU, for sampling."""
        net = build(model)
        tensors = {**self.ema, **dict(self.net.named_buffers())}
        net.load_state_dict({name: tensor.cpu() for name, tensor in tensors.items()})
        return net.eval()


class LossLog:
    """Means of LOG_EVERY losses, as lines of JSON."""

    def __init__(self, path: Path) -> None:
        self._path, self._recent, self._started = path, [], time.monotonic()

    def add(self, step: int, loss: float) -> float | None:
        """The mean whenever a line was written. step: counted from 1. Exits if the loss is not finite."""
        self._recent.append(loss)
        if len(self._recent) < LOG_EVERY:
            return None
        mean = sum(self._recent) / len(self._recent)
        self._recent.clear()
        seconds = round(time.monotonic() - self._started, 1)
        with open(self._path, "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "loss": round(mean, 5), "seconds": seconds}) + "\n")
        if not math.isfinite(mean):
            sys.exit(f"The loss is {mean} at step {step}; nothing was saved since the last checkpoint.")
        return mean


def run(
    progress: Progress,
    log: LossLog,
    steps: int,
    seconds: float,
    one_step: Callable[[int], float],
    on_save: Callable[[], None] = lambda: None,
    save_every: float = 240.0,
) -> None:
    """Trains until there were so many steps, or for so many seconds, with a checkpoint at the end and every
    so often. one_step: gives the loss of a step by its number. on_save: is called behind each checkpoint."""
    from tqdm import tqdm

    first, started = progress.step, time.monotonic()
    saved = started
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=5, disable=None)
    for step in bar:
        mean = log.add(step + 1, one_step(step))
        if mean is not None:
            bar.set_postfix(loss=f"{mean:.4f}")
        is_over = seconds and time.monotonic() - started > seconds
        if is_over:
            break
        if time.monotonic() - saved > save_every:
            progress.save()
            on_save()
            saved = time.monotonic()
    progress.save()
    on_save()


def add_run_arguments(
    parser: argparse.ArgumentParser, steps: int | None = None, rate: float | None = None
) -> None:
    """What every training is told. steps, rate: the defaults; None: each model has its own."""
    own = " (default: the model's own)"
    parser.add_argument(
        "--steps", type=int, default=steps, help="training steps in all" + own * (steps is None)
    )
    parser.add_argument("--rate", type=float, default=rate, help="learning rate" + own * (rate is None))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long; run again to go on")


def train(
    model: str,
    steps: int,
    rate: float,
    seed: int,
    threads: int,
    seconds: float,
    initial: Path | None,
    out: Path,
) -> None:
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings, codec = SETTINGS[model], codec_for(seed)
    net = build(model)
    if initial is not None:
        net.load_state_dict(load_file(initial))
    net = net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    progress = Progress(net, optimizer, RUNS / f"{model}.pt", out)
    log = LossLog(RUNS / f"{model}.jsonl")
    count = sum(parameter.numel() for parameter in net.parameters())
    print(
        f"{model}: {count / 1e6:.2f} M parameters, {steps} steps of {settings['batch']}, {device}", flush=True
    )

    def one_step(step: int) -> float:
        pictures, words = data.batch(model, seed, step, settings["batch"])
        latents = latents_of(codec, model, pictures).to(device)
        with bfloat16_where_fast(device.type):
            loss = loss_of(net, model, latents, words, seed, step)
        progress.update(loss, rate * rate_at(step, steps), min(EMA_DECAY, (step + 1) / (step + 10)))
        return loss.item()

    run(progress, log, steps, seconds, one_step)
    save_grid(progress.averaged(model), model, codec, RUNS / f"{model}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SETTINGS), required=True)
    add_run_arguments(parser)
    parser.add_argument("--initial", type=Path, help="start from these weights instead of from nothing")
    parser.add_argument(
        "--out", type=Path, help="where the weights go (default: demo/models/diffusion_models)"
    )
    options = parser.parse_args(arguments)
    out = options.out or WEIGHTS / f"omnicache_demo_{options.model}.safetensors"
    steps = options.steps or SETTINGS[options.model]["steps"]
    rate = options.rate or SETTINGS[options.model]["rate"]
    train(
        options.model,
        steps,
        rate,
        options.seed,
        options.threads,
        options.seconds,
        options.initial,
        out,
    )


if __name__ == "__main__":
    main()
