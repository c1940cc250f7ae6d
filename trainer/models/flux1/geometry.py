"""FLUX's latent geometry: 8 x 8 pixels a latent, 2 x 2 latents packed into a token of 64 channels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the settings' sizes are checked with it, without torch
    import torch
    from torch import Tensor

CHANNELS = 16
FILL_CHANNELS = 384  # a token of FLUX.1-Fill: 64 of x, 64 of the masked picture, 2 x 2 x 8 x 8 pixels of the mask
PIXELS_PER_TOKEN = 16


@dataclass(frozen=True)
class Geometry:
    """A picture's size in pixels, each a positive multiple of 16."""

    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            pixels = getattr(self, name)
            if pixels <= 0 or pixels % PIXELS_PER_TOKEN:
                below = max(1, pixels // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN
                raise ValueError(f"{name} must be a multiple of {PIXELS_PER_TOKEN} pixels, got {pixels}: try {below}")

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @property
    def rows(self) -> int:
        return self.height // PIXELS_PER_TOKEN

    @property
    def columns(self) -> int:
        return self.width // PIXELS_PER_TOKEN

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[16, height / 8, width / 8], the shape noise is drawn in."""
        return (CHANNELS, 2 * self.rows, 2 * self.columns)

    def pack(self, latent: "Tensor") -> "Tensor":
        """[N, 16, 2 rows, 2 columns] -> [N, tokens, 64]."""
        x = latent.unflatten(3, (self.columns, 2)).unflatten(2, (self.rows, 2))  # [N, 16, r, 2, c, 2]
        return x.permute(0, 2, 4, 1, 3, 5).reshape(len(latent), self.tokens, 4 * CHANNELS)

    def pack_mask(self, mask: "Tensor") -> "Tensor":
        """[2 rows, 2 columns] -> [tokens, 64], the same for all channels."""
        return self.pack(mask.expand(1, *self.latent_shape))[0]

    def unpack(self, tokens: "Tensor") -> "Tensor":
        """[N, tokens, 64] -> [N, 16, 2 rows, 2 columns]."""
        x = tokens.unflatten(2, (CHANNELS, 2, 2)).unflatten(1, (self.rows, self.columns))  # [N, r, c, 16, 2, 2]
        return x.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), *self.latent_shape)

    def position_ids(self, device: "torch.device | str" = "cpu", picture: int = 0) -> "Tensor":
        """(picture, row, column) of every token, [tokens, 3] float32; FLUX.1-Kontext's reference is picture 1."""
        import torch

        rows = torch.arange(self.rows, device=device).repeat_interleave(self.columns)
        columns = torch.arange(self.columns, device=device).repeat(self.rows)
        return torch.stack([torch.full_like(rows, picture), rows, columns], dim=1).float()
