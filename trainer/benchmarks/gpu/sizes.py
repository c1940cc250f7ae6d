"""How large the checks are: FULL for a card, smaller when the harness itself is tested."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .card import GIB

BLOCKS = {"num_layers": 2, "num_single_layers": 2}
# heads of FLUX's own width, so that a card takes the attention kernels that it takes for FLUX
NARROW = {**BLOCKS, "num_attention_heads": 4, "joint_attention_dim": 256, "pooled_projection_dim": 128}
NARROW_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}


@dataclass(frozen=True)
class Sizes:
    """What the checks compute with. Pixels are edges of square pictures."""

    path: str = "hub:black-forest-labs/FLUX.1-dev"  # whose sizes models have: nothing of it is read
    reward: str = "hpsv2.1"  # likewise
    narrow: Mapping[str, Any] = field(default_factory=lambda: NARROW)  # of the model that the CPU computes too
    narrow_vae: Mapping[str, Any] = field(default_factory=lambda: NARROW_VAE)
    blocks: Mapping[str, Any] = field(default_factory=lambda: BLOCKS)  # of a few blocks of full width
    dtype: str = "bfloat16"
    pixels: int = 512
    large: int = 1024
    narrow_pixels: int = 256
    narrow_tokens: int = 64  # of text
    group: int = 12  # G
    steps: int = 8  # T
    fewer_steps: int = 2  # if T decides nothing but seconds
    micro_batches: tuple[int, ...] = (1, 2, 4, 12)
    matrix: int = 8192  # edge of the product whose speed is measured
    copied: int = 2**28  # bytes from host to device
    moved: int = GIB  # bytes within the device
    passes: int = 30  # of the search for races
    pairs: int = 3  # of the overhead's measurement
    left: int = GIB  # bytes that may stay after a model was dropped
    slack: int = round(0.3 * GIB)  # bytes that a peak may differ from its count
    # what is chosen by itself on a card with so many bytes free
    chosen: Mapping[int, str] = field(default_factory=lambda: {16 * GIB: "fp8", 32 * GIB: "bf16"})
    first_case: bool = False  # whether the plans' check measures its first case alone
    drawn_on_device: bool = True  # random weights; else on the CPU, and copied


FULL = Sizes()
