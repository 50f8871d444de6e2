"""Makes tests/host/open_sora_vae_reference.safetensors: what the original autoencoder of Open-Sora 1.2 gives,
tiny, with known weights and inputs. Called like stdit3_reference.py, and needs the diffusers library too.
"""

import argparse
import importlib
import json
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stdit3_reference import known_weights, stub

REFERENCE = Path(__file__).resolve().parent.parent / "tests" / "host" / "open_sora_vae_reference.safetensors"

SPATIAL = {
    "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
WIDTH, DEPTH, GROUPS = 8, 2, 4
SHIFT, SCALE = (-0.1, 0.3, 0.2, 1.0), (4.0, 2.0, 2.5, 3.0)
FRAMES = 22  # a piece of 17, and one of 5


def pixels() -> Tensor:
    return torch.rand(1, 3, FRAMES, 8, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def original_model(checkout: Path) -> nn.Module:
    """The original's class, tiny. Encoding gives the mean."""
    import diffusers.models.autoencoders.vae as library
    from diffusers import AutoencoderKL

    for name in ("opensora", "opensora.models", "opensora.models.vae"):
        stub(name).__path__ = [str(checkout / name.replace(".", "/"))]
    register = types.SimpleNamespace(register_module=lambda *_: lambda made: made)
    parts = {}
    stub("opensora.registry", MODELS=register, build_module=lambda name, registry: parts[name])
    stub("opensora.utils")
    stub("opensora.utils.ckpt_utils", load_checkpoint=None)
    vae = importlib.import_module("opensora.models.vae.vae")
    temporal = importlib.import_module("opensora.models.vae.vae_temporal")
    for distribution in (library.DiagonalGaussianDistribution, temporal.DiagonalGaussianDistribution):
        distribution.sample = distribution.mode

    parts["spatial"] = spatial = vae.VideoAutoencoderKL.__new__(vae.VideoAutoencoderKL)
    nn.Module.__init__(spatial)
    spatial.module, spatial.micro_batch_size, spatial.patch_size = AutoencoderKL(**SPATIAL), 4, (1, 8, 8)
    parts["temporal"] = temporal.VAE_Temporal(
        filters=WIDTH, num_res_blocks=DEPTH, num_groups=GROUPS, temporal_downsample=(False, True, True)
    )
    config = vae.VideoAutoencoderPipelineConfig(
        "spatial", "temporal", shift=SHIFT, scale=SCALE, micro_frame_size=17
    )
    return vae.VideoAutoencoderPipeline(config).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="folder of Open-Sora, at v1.2.0")
    model = original_model(parser.parse_args().checkout.resolve())
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in ("shift", "scale")}
    model.load_state_dict(known_weights(state), strict=False)
    with torch.no_grad():
        latents = model.encode(pixels())
        decoded = model.decode(latents, num_frames=FRAMES)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    outputs = {"latents": latents.contiguous(), "decoded": decoded.contiguous()}
    save_file(outputs, REFERENCE, {"shapes": json.dumps(shapes)})
    print(f"{REFERENCE}: {tuple(latents.shape)}, {tuple(decoded.shape)}")


if __name__ == "__main__":
    main()
