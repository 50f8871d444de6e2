"""Counts floating-point operations, attention included on every device."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# PyTorch knows the attention of GPUs only.
ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
        sdpa_flop_count(query, key, value)
    )
}


def counter() -> FlopCounterMode:
    """A context: its get_total_flops() afterwards."""
    return FlopCounterMode(display=False, custom_mapping=ON_CPU)
