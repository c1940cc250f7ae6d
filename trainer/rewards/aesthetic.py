"""LAION's aesthetic predictor: how much people like a picture, whatever it shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .clip import ClipEncoder
from .clip_kinds import load_openai_clip
from .errors import RewardError
from .preprocess import Preprocess
from .tensor_files import MISFITS, read_tensors
from .weights import find

LAYERS = (0, 2, 4, 6, 7)  # of the file's nn.Sequential; dropouts stand between


class AestheticReward:
    """A linear map of the unit picture vector, about 1 to 10. Prompts are ignored.

    Args:
        weight, bias: [D] and [], from `linear_head`.
    """

    def __init__(self, encoder: ClipEncoder, preprocess: Preprocess, weight: Tensor, bias: Tensor):
        self.encoder, self.preprocess, self.weight, self.bias = encoder, preprocess, weight, bias

    def to(self, device: str | torch.device) -> "AestheticReward":
        self.encoder.to(device)
        self.weight, self.bias = self.weight.to(device), self.bias.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self.encoder.images(self.preprocess(images)) @ self.weight + self.bias).to(images.device)


def aesthetic(device: str, path: str = "", head: str = "", dtype: str = "auto") -> AestheticReward:
    """sac+logos+ava1-l14-linearMSE on OpenAI's ViT-L-14. `path`: the CLIP, `head`: the five layers."""
    file = find("aesthetic", head)
    layers = read_tensors(file)
    encoder = load_openai_clip(device, path, dtype)
    weight, bias = linear_head(layers, encoder.model.config.projection_dim, file)
    return AestheticReward(encoder, Preprocess(encoder.size), weight, bias).to(device)


def linear_head(layers: Mapping[str, Tensor], width: int, file: Path) -> tuple[Tensor, Tensor]:
    """The five layers as one: nothing but dropout stands between them, so their product is exact.

    Raises:
        RewardError: other layers, or for vectors of another length than `width`.
    """
    try:
        stack = [(layers[f"layers.{n}.weight"].double(), layers[f"layers.{n}.bias"].double()) for n in LAYERS]
        weight, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        for w, b in stack:  # in double precision: five roundings would show
            weight, bias = w @ weight, w @ bias + b
        return weight[0].float(), bias.reshape(()).float()
    except MISFITS as error:
        shapes = {name: list(tensor.shape) for name, tensor in layers.items() if name.endswith("weight")}
        raise RewardError(
            f"{file} is no aesthetic head for vectors of {width} numbers: it needs the linear layers "
            f"{', '.join(f'layers.{n}' for n in LAYERS)} down to 1, got {shapes}"
        ) from error
