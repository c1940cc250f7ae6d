"""Where a model computes, in which precision, and how its weights are kept."""

from dataclasses import dataclass

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """What a loader has to know of the machine, and nothing of the model."""

    device: str  # a torch device, such as "cuda" or "cpu"
    dtype: torch.dtype  # that it computes in
    memory: str = "bf16"  # precision that the frozen weights are kept in, or "auto", see `plan_for`
    offload: float = 0.0  # share of the blocks whose weights wait in host memory
    reserve: int = 0  # bytes of what is free that "auto" leaves to others
    checkpointing: bool = False  # the blocks' activations are computed again in the backward pass instead of kept
    in_8_bits: bool = False  # 8-bit weights are multiplied as such, see `eight_bits.multiply`
    compiled: bool = False  # torch.compile makes the blocks faster, see `compile_blocks`
