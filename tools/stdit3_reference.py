"""Makes tests/host/stdit3_reference.safetensors: what the original code of Open-Sora 1.2 gives for a tiny
model with known weights and inputs.

    git clone --branch v1.2.0 https://github.com/hpcaitech/Open-Sora
    pip install rotary-embedding-torch==0.5.3 transformers
    python tools/stdit3_reference.py Open-Sora

Of the original only the mathematics is run; its training, kernels and parallel code are replaced by stubs.
"""

import argparse
import importlib
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

REFERENCE = Path(__file__).resolve().parent.parent / "tests" / "host" / "stdit3_reference.safetensors"

CONFIG = {
    "hidden_size": 48, "depth": 2, "num_heads": 4, "caption_channels": 20, "model_max_length": 9,
    "input_sq_size": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One forward of two rows. shape: of a latent without its rows. tokens: of the text of each row that
    count, None for all without a mask."""

    shape: tuple[int, int, int, int]
    frame_rate: float
    height: float
    width: float
    tokens: tuple[int, int] | None

    def inputs(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(7)
        inputs = {
            "x": torch.randn(2, *self.shape, generator=generator),
            "timestep": torch.tensor([833.0, 12.5]),
            "context": torch.randn(2, CONFIG["model_max_length"], 20, generator=generator),
        }
        if self.tokens:
            inputs["attention_mask"] = torch.tensor([[int(i < n) for i in range(9)] for n in self.tokens])
        return inputs


CASES = {
    "video, sizes that do not fill the patches": Case((4, 3, 5, 8), 24.0, 43.0, 66.0, (3, 9)),
    "image, all tokens": Case((4, 1, 6, 4), 120.0, 48.0, 32.0, None),
}


def known_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a model of this state dictionary that depend on nothing but names and shapes."""
    generator = torch.Generator().manual_seed(3)
    return {name: 0.2 * torch.randn(state[name].shape, generator=generator) for name in sorted(state)}


def original_model(checkout: Path) -> nn.Module:
    """The original's class, tiny."""
    import transformers  # noqa: F401  asks for timm, so before that is a stub

    for name in ("opensora", "opensora.models", "opensora.models.layers", "opensora.models.stdit"):
        stub(name).__path__ = [str(checkout / name.replace(".", "/"))]
    unused = lambda *_, **__: None  # noqa: E731
    for name in ("opensora.acceleration", "opensora.utils", "timm", "timm.models", "xformers"):
        stub(name)
    stub("opensora.acceleration.checkpoint", auto_grad_checkpoint=lambda block, *args: block(*args))
    names = ("all_to_all", "split_forward_gather_backward", "gather_forward_split_backward")
    stub("opensora.acceleration.communications", **dict.fromkeys(names, unused))
    stub("opensora.acceleration.parallel_states", get_sequence_parallel_group=unused)
    stub("opensora.registry", MODELS=types.SimpleNamespace(register_module=lambda *_: lambda made: made))
    stub("opensora.utils.ckpt_utils", load_checkpoint=unused)
    stub("timm.models.layers", DropPath=nn.Identity)
    stub("timm.models.vision_transformer", Mlp=_MLP)
    blocks = types.SimpleNamespace(from_seqlens=lambda queries, keys: (queries, keys))
    sys.modules["xformers"].ops = stub(
        "xformers.ops",
        memory_efficient_attention=_attention_by_rows,
        fmha=types.SimpleNamespace(BlockDiagonalMask=blocks),
    )
    module = importlib.import_module("opensora.models.stdit.stdit3")
    return module.STDiT3(module.STDiT3Config(**CONFIG)).eval()


def stub(name: str, **attributes: Any) -> types.ModuleType:
    """Stands for a module of this name from now on."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(attributes)
    return module


class _MLP(nn.Module):
    def __init__(
        self, in_features: int, hidden_features: int, out_features: int = 0, *, act_layer: Callable, drop: int
    ) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def _attention_by_rows(
    q: Tensor, k: Tensor, v: Tensor, p: float, attn_bias: tuple[list[int], list[int]]
) -> Tensor:
    """Attention among (1, tokens of all rows, heads, channels), each row by itself."""
    queries, keys = attn_bias
    rows = zip(q.split(queries, dim=1), k.split(keys, dim=1), v.split(keys, dim=1), strict=True)
    found = [scaled_dot_product_attention(*(part.transpose(1, 2) for part in row)) for row in rows]
    return torch.cat([attended.transpose(1, 2) for attended in found], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="folder of Open-Sora, at v1.2.0")
    model = original_model(parser.parse_args().checkout.resolve())
    model.load_state_dict(known_weights(model.state_dict()))
    outputs = {}
    for name, case in CASES.items():
        inputs = case.inputs()
        with torch.no_grad():
            outputs[name] = model(
                inputs["x"], inputs["timestep"], inputs["context"][:, None], inputs.get("attention_mask"),
                fps=torch.full((2,), case.frame_rate), height=torch.full((2,), case.height),
                width=torch.full((2,), case.width),
            ).contiguous()  # fmt: skip
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    save_file(outputs, REFERENCE, {"shapes": json.dumps(shapes)})
    print(f"{REFERENCE}: {', '.join(outputs)}")


if __name__ == "__main__":
    main()
