"""What a family's layers are called in files of LoRAs: the one thing about them that differs from model to model."""

from collections.abc import Collection
from typing import Protocol

from torch import Tensor


class LayerNames(Protocol):
    """A module of a family with these functions, such as `flux1.lora_names`."""

    def fused_layers(self, modules: Collection[str]) -> dict[str, list[str]]:
        """The original code's layers that hold any of `modules`, each with all the modules whose rows it stacks."""

    def spellings(self, modules: Collection[str]) -> dict[str, list[str]]:
        """What files call the layers of a model with these linear `modules`: name -> those whose rows it stacks."""

    def stacked_rows(self, module: str, hidden: int) -> int:
        """Rows of a module in a layer that stacks several, for a model `hidden` wide."""

    def turned(self, module: str, rows: Tensor) -> Tensor:
        """A module's rows in the other program's order, if the two differ."""


class OwnNames:
    """Of a family whose LoRAs no other program writes: diffusers' and PEFT's names, and nothing is stacked."""

    def fused_layers(self, modules: Collection[str]) -> dict[str, list[str]]:
        return {}

    def spellings(self, modules: Collection[str]) -> dict[str, list[str]]:
        return {f"{prefix}{m}": [m] for m in modules for prefix in ("transformer.", "base_model.model.", "")}

    def stacked_rows(self, module: str, hidden: int) -> int:
        raise ValueError(f"{module} is in no layer that stacks several")

    def turned(self, module: str, rows: Tensor) -> Tensor:
        return rows
