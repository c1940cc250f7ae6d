"""torch.compile of a model's blocks, if it works."""

import logging

import torch
from torch import nn

from .memory import blocks

log = logging.getLogger(__name__)


def compile_blocks(module: nn.Module, device: torch.device | str) -> bool:
    """Have the repeated blocks of `module` compiled at their first call, which takes minutes for FLUX.

    If torch.compile does not work on this machine, most often for want of a compiler, the module stays as it was and
    a warning says why. Returns whether it is compiled.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # noqa: BLE001  each of torch.compile's parts has errors of its own
        reason = " ".join(str(error).split())[:200]
        log.warning("model.compile = true: torch.compile does not work here (%s); going on without it", reason)
        return False
    for block in blocks(module):
        block.compile()
    return True
