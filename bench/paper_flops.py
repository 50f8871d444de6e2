"""Operations of the paper's models at the paper's sizes, uncached and with its shares of reused steps.

    .host/venv/bin/python bench/paper_flops.py

Counts with torch's FLOP counter on the meta device, so it needs neither weights nor memory; half a
minute. Needs the diffusers library. Writes bench/out/paper_flops.json, and `bench/paper.py --report` puts it
into docs/paper.md.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tables import number, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

RESULT = ROOT / "bench" / "out" / "paper_flops.json"


@dataclass(frozen=True)
class Model:
    """One line of the paper's tables. sampling: in words. rows: evaluated at each step. reused: steps, in the
    paper's settings. printed: TFLOPs in the paper, uncached and then for each setting; None where it has
    none. make: the transformer at its real size. call: one forward of one row."""

    name: str
    sampling: str
    where: str
    steps: int
    rows: int
    reused: tuple[int, ...]
    printed: tuple[float | None, ...]
    make: Callable[[], nn.Module]
    call: Callable[[nn.Module], object]


def _dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(out_channels=8)  # the library's defaults are DiT-XL/2 256


def _latte() -> nn.Module:
    from diffusers import LatteTransformer3DModel

    return LatteTransformer3DModel(
        num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28,
        cross_attention_dim=1152, attention_bias=True, sample_size=64, patch_size=2,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=4096, video_length=16,
    )  # fmt: skip


def _stdit3() -> nn.Module:
    from comfyui_omnicache.architectures.stdit3 import STDiT3

    return STDiT3()


def _open_sora(width: int, tokens: int) -> Model:
    size = f"{width} x 480, 51 frames, 30 steps, guidance, {tokens} text tokens"
    latents, text = torch.Size((1, 4, 15, 60, width // 8)), torch.Size((1, tokens, 4096))
    return Model(
        "Open-Sora 1.2", size, "Table 1", 30, 2,
        (15, 18), (3230.24, 1615.12, 1292.10), _stdit3,
        lambda model: model(torch.empty(latents), torch.ones(1), torch.empty(text)),
    )  # fmt: skip


def _cogvideox() -> nn.Module:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=48, num_layers=42, in_channels=32, use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    )  # fmt: skip


def _cogvideox_1_5() -> nn.Module:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=48, num_layers=42, in_channels=32, use_rotary_positional_embeddings=True,
        patch_size_t=2, patch_bias=False, ofs_embed_dim=512, sample_width=300, sample_height=300,
        sample_frames=81,
    )  # fmt: skip


def _video(model: nn.Module, frames: int, height: int, width: int) -> object:
    """CogVideoX: latents and image latents (rows, frames, 32 channels, height, width), 226 text tokens."""
    ofs = torch.ones(1) if model.ofs_embedding is not None else None
    return model(torch.empty(1, frames, 32, height, width), torch.empty(1, 226, 4096), torch.ones(1), ofs=ofs)


MODELS = (
    Model(
        "DiT-XL/2", "256 x 256, 250 steps, guidance", "Table 3", 250, 2, (125, 150), (118.68, None, 47.47),
        _dit, lambda model: model(torch.empty(1, 4, 32, 32), torch.ones(1), torch.ones(1, dtype=torch.long)),
    ),
    Model(
        "Latte", "512 x 512, 16 frames, 50 steps, guidance, 120 text tokens", "Table 1", 50, 2, (25, 30),
        (3439.47, 1719.74, 1375.79),
        _latte, lambda model: model(torch.empty(1, 4, 16, 64, 64), torch.ones(1), torch.empty(1, 120, 4096)),
    ),
    _open_sora(854, 300),
    _open_sora(854, 20),
    _open_sora(832, 61),
    Model(
        "CogVideoX-5b-I2V", "720 x 480, 49 frames, 16 steps, no guidance", "Table 2", 16, 1, (5,),
        (None, None),
        _cogvideox, lambda model: _video(model, 13, 60, 90),
    ),
    Model(
        "CogVideoX1.5-5B-I2V", "1360 x 768, 81 frames, 16 steps, no guidance", "Table 2", 16, 1, (5,),
        (None, None),
        _cogvideox_1_5, lambda model: _video(model, 22, 96, 170),
    ),
)  # fmt: skip


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions; a multiplication and an addition are
    two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def leave_out_blocks(model: nn.Module) -> None:
    """What remains is what a reuse evaluation computes: the embedders and what follows the last block."""
    for name, blocks in model.named_children():
        if name.endswith("_blocks"):
            for block in blocks:
                block.forward = _reused


def _reused(hidden_states: torch.Tensor, *_: object, encoder_hidden_states=None, temb=None, **__: object):
    """CogVideoX hands on text beside the video; the others give it by position or not at all."""
    return hidden_states if temb is None else (hidden_states, encoder_hidden_states)


def counted(model: Model) -> dict:
    """TFLOPs of a row's evaluations, and of whole runs: of what is computed, and with the noise measured
    (Eq. 6) by one more reuse evaluation for each run of reused steps of an evenly spread plan."""
    from comfyui_omnicache.omnicache.plan import Budget
    from comfyui_omnicache.omnicache.schedule import Schedule

    with torch.device("meta"):
        transformer = model.make().eval()
        full = operations(lambda: model.call(transformer)) / 1e12
        leave_out_blocks(transformer)
        reuse = operations(lambda: model.call(transformer)) / 1e12
    whole = model.steps * model.rows * full
    settings = []
    for reused, printed in zip(model.reused, model.printed[1:], strict=True):
        plan = Schedule(Budget("reuse ratio", reused / model.steps), "even").plan_for(
            [1 - step / model.steps for step in range(model.steps + 1)]
        )
        starts = sum(now and not before for before, now in zip(plan.reused, plan.reused[1:], strict=False))
        without = model.rows * ((model.steps - reused) * full + reused * reuse)
        corrected = without + model.rows * starts * reuse
        settings.append(
            {
                "reused": reused, "printed": printed, "counted": without, "corrected": corrected,
                "ratio": whole / without, "corrected_ratio": whole / corrected,
                "of_steps": model.steps / (model.steps - reused),
            }
        )  # fmt: skip
    return {
        "name": model.name, "sampling": model.sampling, "where": model.where, "steps": model.steps,
        "rows": model.rows, "full": full, "reuse": reuse, "printed": model.printed[0], "counted": whole,
        "settings": settings,
    }  # fmt: skip


def section(rows: list[dict]) -> list[str]:
    """Markdown of what was counted; nothing if nothing was."""
    if not rows:
        return []
    head = (
        "model", "TFLOPs: paper", "counted", "reuse evaluation, of a full one", "reused steps",
        "TFLOPs: paper", "counted", "ratio of steps", "of FLOPs", "with the noise measured",
    )  # fmt: skip
    lines = []
    for row in rows:
        first = [
            f"{row['name']}: {row['sampling']} ({row['where']})", number(row["printed"]),
            number(row["counted"]), f"{row['reuse'] / row['full']:.3%}".replace("%", " %"),
        ]  # fmt: skip
        for setting in row["settings"]:
            lines.append([
                *first, f"{setting['reused']} of {row['steps']}", number(setting["printed"]),
                number(setting["counted"]), f"{setting['of_steps']:.2f}x", f"{setting['ratio']:.3f}x",
                f"{setting['corrected_ratio']:.3f}x",
            ])  # fmt: skip
            first = [""] * len(first)
    return ["## FLOPs at the paper's sizes", "", *table(head, lines), "", *NOTES, ""]


NOTES = (
    "Made by `bench/paper_flops.py` with torch's FLOP counter on transformers of the real size, without "
    "weights. A multiplication and an addition are two operations; matrix products and convolutions are "
    "counted, as usual, and neither the text encoder nor the VAE.",
    "",
    "- DiT-XL/2 and Latte agree with the paper to 0.02 %. So its numbers are of the same kind, for both rows "
    "of guidance at every step.",
    "- Open-Sora: at 854 x 480, the size that its 480p stands for at 16:9, counted is more than printed, by "
    "5 % with the text padded to 300 tokens, by 2 % with 20 (the original leaves padding out), and by 1 % "
    "with hardly any, so the paper's videos were smaller. At 832 x 480, the next common width down, a text "
    "of 61 tokens makes the printed number. The ratios do not depend on it.",
    "- CogVideoX: the paper prints no FLOPs, and says neither which version was distilled nor at how many "
    "rows. Both public versions stand here, at their own sizes; the second is the one that makes the paper's "
    "1360 x 768. The ratio is the same.",
    "- The paper's speed-ups are steps over computed steps to the last digit. At these sizes that is fair to "
    "FLOPs: what a reuse evaluation still computes, the embedders and the final layer, is about a "
    "ten-thousandth of a full one, and so is measuring the noise, once for each run of reused steps. On the "
    "small models of this page it is a hundred times as much.",
    "- Time is another matter: norms, gates, guidance, the sampler and the filter are no FLOPs.",
)


def read() -> list[dict]:
    """What was counted, empty if nothing was."""
    return json.loads(RESULT.read_text()) if RESULT.is_file() else []


def main() -> None:
    from in_process import load_pack

    load_pack()
    rows, started = [], time.monotonic()
    for model in MODELS:
        rows.append(counted(model))
        print(
            f"{model.name}: {rows[-1]['counted']:.1f} TFLOPs, {time.monotonic() - started:.0f} s", flush=True
        )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print(RESULT)


if __name__ == "__main__":
    main()
