"""Where tensors live."""

import torch

from .config import AUTO, ConfigError


def pick_device(name: str) -> str:
    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device = {name!r}: not a torch device, such as 'cuda', 'cuda:1' or 'cpu'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device = {name!r}: torch sees no CUDA device; use 'cpu', or install torch with CUDA")
    return name
