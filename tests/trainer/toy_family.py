"""A model family in one file: a flow to normal distributions in the plane, in closed form, without a transformer.

Each prompt is a point mu. Data are mu + WIDTH * N(0, I); the velocity that carries noise to them is exact, and mu,
which comes from the prompt by a linear layer, is what a LoRA can move.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from trainer.models.conditioning import Conditioning
from trainer.models.lora.attach import activate_lora, enable_loras
from trainer.models.lora.names import OwnNames

WIDTH = 0.3  # standard deviation of the data


@dataclass(frozen=True)
class Plane:
    """Pictures of one colour: two numbers, its red and its green."""

    width: int
    height: int
    latent_shape = (2,)

    def pack(self, latent):
        return latent

    def pack_mask(self, mask):
        return mask


class Centres(nn.Module):
    def __init__(self):
        super().__init__()
        self.centre = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.centre.weight)


@dataclass
class ToyPolicy:
    network: Centres
    adapter: str = ""
    before_call: Callable[[], None] = lambda: None
    device, dtype, layer_names = torch.device("cpu"), torch.float32, OwnNames()

    @property
    def lora_targets(self):
        return {"all-linear": ".*"}

    def geometry(self, width, height):
        return Plane(width, height)

    def shift(self, geometry):
        return 1.0

    def velocity(self, conditioning, geometry):
        """E[noise - data | x] at x = (1 - sigma) * data + sigma * noise."""
        activate_lora(self.network, self.adapter)

        def velocity(x, sigma, rows):
            self.before_call()
            mu, s = self.network.centre(conditioning.tensors["point"][rows]), sigma[:, None]
            off = x - (1 - s) * mu
            variance = (1 - s) ** 2 * WIDTH**2 + s**2
            return (s - (1 - s) * WIDTH**2) / variance * off - mu

        return velocity

    @contextmanager
    def reference(self):
        enable_loras(self.network, False)
        try:
            yield
        finally:
            enable_loras(self.network, True)

    @torch.no_grad()
    def decode(self, x_0, geometry):
        self.before_call()
        red, green = x_0.sigmoid().unbind(1)
        pixels = torch.stack([red, green, torch.zeros_like(red)], 1)
        return pixels[:, :, None, None].expand(-1, -1, geometry.height, geometry.width)

    def check(self, inits):
        assert not inits


class ToyFlow:
    """A prompt is two numbers, as in "0.5 -1"."""

    planned = False

    def recognises(self, source):
        return source.name == "toy"

    def load(self, source, placement, *, guidance):
        return ToyPolicy(Centres())

    def encode(self, source, sets, placement, *, tokens):
        return [Conditioning({"point": torch.tensor([[float(n) for n in p.split()] for p in ps])}) for ps in sets]
