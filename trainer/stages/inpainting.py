"""What trajectories begin from beside noise (image-to-image), what they leave as it is (inpainting), what they see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Init:
    """Pictures to begin from: one for all prompts, or one for each. They wait on the CPU."""

    latents: Tensor  # in the model's units, [1 or prompts, *latent_shape]
    # True where a picture is drawn anew, over the latent's area, bool, on the CPU; None: everywhere
    mask: Tensor | None = None
    # what the model sees of pictures and mask while it draws, by the family's names, [1 or prompts, ...] each
    seen: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, prompts: Sequence[int]) -> "Init":
        """The same with one row for each of these prompts."""
        rows = list(prompts) if len(self.latents) > 1 else [0] * len(prompts)
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> "Init":
        """The same on the device that computes, but for the mask, whose area is counted on the CPU."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Init":
        seen = {name: change(tensor) for name, tensor in self.seen.items()}
        return replace(self, latents=change(self.latents), seen=seen)


@dataclass(frozen=True)
class Unmasked:
    """The region that inpainting leaves as it is, outside the mask, for N trajectories.

    It is to be the picture's latent z noised by the trajectory's own noise: (1 - sigma) * z + sigma * eps. That is a
    straight path, so to overwrite it after every step is to give it the velocity eps - z: every solver follows that
    exactly, and the history of a solver of higher order belongs to one path inside and outside the mask.
    """

    mask: Tensor  # False where the region is, [*latent] bool
    positions: Tensor  # of what is masked in a flattened latent, [n]
    z: Tensor  # [N, *latent]
    noise: Tensor  # eps, [N, *latent]

    @classmethod
    def of(cls, mask: Tensor, z: Tensor, noise: Tensor) -> "Unmasked":
        """`mask` is on the CPU: to count it on the device would wait for the device."""
        positions = mask.flatten().nonzero().squeeze(1)
        return cls(mask.to(z.device), positions.to(z.device), z, noise)

    def velocity(self, v: Tensor) -> Tensor:
        """v [N, *latent], with the region's own."""
        return torch.where(self.mask, v, self.noise - self.z)

    def end(self, x_0: Tensor) -> Tensor:
        """x_0 [N, *latent], with z itself if rounding has left something near it."""
        return torch.where(self.mask, x_0, self.z)
