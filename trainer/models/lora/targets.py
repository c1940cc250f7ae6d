"""Which layers get a LoRA: a preset, or a regular expression over the network's module paths."""

import difflib
import re
from collections.abc import Iterator, Mapping

from peft.tuners.lora import LoraLayer
from torch import nn

from ...errors import UserError, brief


class LoraError(UserError):
    """A LoRA, or a file of one, that cannot be read or does not fit the model."""


def linear_layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer of the frozen model by its path; those that carry a LoRA already come without it."""
    if isinstance(module, LoraLayer):
        module = module.get_base_layer()
    if isinstance(module, nn.Linear):
        yield path, module
        return
    for name, child in module.named_children():
        yield from linear_layers(child, f"{path}.{name}" if path else name)


def target_layers(network: nn.Module, targets: str, presets: Mapping[str, str]) -> dict[str, nn.Linear]:
    """The linear layers that `targets` names: a key of `presets`, or an expression that matches whole paths.

    Raises:
        LoraError: no layer's path matches; says what is near.
    """
    pattern = re.compile(presets.get(targets, targets))
    layers = dict(linear_layers(network))
    found = {path: layer for path, layer in layers.items() if pattern.fullmatch(path)}
    if not found:
        # the expression's own signs would only lower the likeness
        plain = re.sub(r"\\d[+*]?", "0", targets).replace("\\", "")
        near = difflib.get_close_matches(plain, list(layers), n=3, cutoff=0)
        raise LoraError(
            f"lora.targets = {brief(targets)}: matches no linear layer's whole path; the nearest are {', '.join(near)}"
        )
    return found
