"""A LoRA's file as the tests look into it."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor


def read_lora(path: Path) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """Weights by their names in the model, the one alpha and the metadata of a file in the diffusers layout."""
    with safe_open(path, "pt") as file:
        tensors = {name.removeprefix("transformer."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    (alpha,) = {float(t) for name, t in tensors.items() if name.endswith(".alpha")}
    return {name: t for name, t in tensors.items() if not name.endswith(".alpha")}, alpha, metadata
