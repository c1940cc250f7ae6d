"""What a model is told beside x."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Named tensors with a row for each of n prompts, such as embeddings of the text. Their names are the family's.

    They wait on the host, in the model's precision; a policy takes those that it needs.
    """

    tensors: Mapping[str, Tensor]  # [n, ...] each
    # the only sigmas that the model will be asked at, if they are known: what hangs on them can be computed once
    sigmas: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> "Conditioning":
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> "Conditioning":
        return self._each(lambda tensor: tensor.to(device))

    def then(self, other: "Conditioning") -> "Conditioning":
        """The rows of both, one after the other.

        Raises:
            ValueError: the two have rows of other names or shapes.
        """
        shapes = [{name: list(tensor.shape[1:]) for name, tensor in c.tensors.items()} for c in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{shapes[0]} beside {shapes[1]}")
        return Conditioning({name: torch.cat([tensor, other.tensors[name]]) for name, tensor in self.tensors.items()})

    def beside(self, more: Mapping[str, Tensor]) -> "Conditioning":
        """The same with other tensors of n rows."""
        return replace(self, tensors={**self.tensors, **more})

    def at(self, sigmas: Sequence[float]) -> "Conditioning":
        """The same, for these sigmas alone."""
        return replace(self, sigmas=tuple(sigmas))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()})
