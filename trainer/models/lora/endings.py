"""How the names of a LoRA's tensors end in files of different programs; without torch."""

from collections.abc import Mapping

# a name's end -> which part of its layer it is
ENDINGS = {
    ".lora_B.weight": "up", ".lora_A.weight": "down",  # diffusers, PEFT
    ".lora_B.default.weight": "up", ".lora_A.default.weight": "down",
    ".lora_up.weight": "up", ".lora_down.weight": "down",  # kohya, OneTrainer
    "_lora.up.weight": "up", "_lora.down.weight": "down",
    ".lora.up.weight": "up", ".lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up", ".lora_linear_layer.down.weight": "down",
    ".lora_B": "up", ".lora_A": "down",
    ".up.weight": "up", ".down.weight": "down",  # XLabs
    ".alpha": "alpha", ".dora_scale": "dora",
}  # fmt: skip


def largest_rank(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of the layers in a file with tensors of these names and shapes; 0 if it is no LoRA."""
    downs = tuple(ending for ending, part in ENDINGS.items() if part == "down")
    return max((shape[0] for name, shape in shapes.items() if name.endswith(downs) and shape), default=0)


def is_dora(names: Mapping[str, object]) -> bool:
    return any(name.endswith(".dora_scale") for name in names)
