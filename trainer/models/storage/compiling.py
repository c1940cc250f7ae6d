"""torch.compile of a model's blocks, if it works."""

import logging

import torch
from torch import nn

from ...choices import AUTO
from ...device import kernels_by_triton
from .memory import blocks

log = logging.getLogger(__name__)

COLD = 120  # seconds for FLUX's two kinds of blocks, forward and backward; an estimate


def wants_compiled(setting: bool | str, device: torch.device | str, *, offload: float, small: bool) -> bool:
    """What `model.compile` means for a model.

    "auto" is yes if Triton compiles for the device, nothing is offloaded, and the model is not small, whose whole
    training takes less. Offloaded weights would break the compiled graph in every layer.
    """
    if setting == AUTO:
        return kernels_by_triton(device) and not offload and not small
    if setting and offload:
        log.warning("model.compile = true: left out, as offloaded weights break the compiled graph in every layer")
    return bool(setting) and not offload


def is_compiled(module: nn.Module) -> bool:
    return any(block._compiled_call_impl is not None for block in blocks(module))


def compile_blocks(module: nn.Module, device: torch.device | str) -> bool:
    """Have the repeated blocks of `module` compiled at their first call, which takes minutes for FLUX.

    If torch.compile does not work on this machine, most often for want of a compiler, the module stays as it was and
    a warning says why. Returns whether it is compiled.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # noqa: BLE001  each of torch.compile's parts has errors of its own
        reason = " ".join(str(error).split())[:200]
        log.warning("model.compile: torch.compile does not work here (%s); going on without it", reason)
        return False
    log.info("the blocks are compiled at their first use: the first iteration takes about %d s more (estimate)", COLD)
    for block in blocks(module):
        block.compile()
    return True
