"""Rewards of the CLIP family: how near a picture is to its prompt, by one `transformers.CLIPModel`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from ..errors import brief
from ..models.storage.visiting import Visitor
from .base import pick_dtype
from .clip_files import read_clip
from .clip_tokens import Tokens
from .errors import RewardError
from .preprocess import Preprocess

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

# of a cosine and the model's logit scale, exp() of what is stored
SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "cosine": lambda cosine, scale: cosine,
    "logit": lambda cosine, scale: scale * cosine,  # PickScore
    "percent": lambda cosine, scale: (100 * cosine).clamp(min=0),  # CLIPScore
}


KNOWN = 4096  # texts whose vectors are kept


def remember(known: dict[str, Tensor], text: str, vector: Tensor) -> Tensor:
    """Remember a text's vector; what came first is forgotten first, as a reward server never ends."""
    if len(known) >= KNOWN:
        del known[next(iter(known))]
    known[text] = vector
    return vector


class ClipEncoder:
    """Pictures and texts as unit vectors of one space. The last KNOWN texts are not encoded again."""

    def __init__(self, model: CLIPModel, tokens: Tokens, device: str, dtype: torch.dtype):
        self.logit_scale = float(model.logit_scale.double().exp())  # before half precision moves it by a thousandth
        self.model, self.tokens = model.to(device, dtype), tokens
        self.size: int = model.config.vision_config.image_size
        self.visitor = Visitor(self.model)
        self.known: dict[str, Tensor] = {}  # text -> [D]

    def to(self, device: str | torch.device) -> "ClipEncoder":
        self.visitor.to(device)
        self.known = {text: vector.to(device) for text, vector in self.known.items()}
        return self

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Preprocessed pictures [N, 3, size, size] -> [N, D], float32."""
        pixels = pixels.to(self.model.device, self.model.dtype)
        return unit(self.model.get_image_features(pixel_values=pixels))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[N, D], float32. A text longer than the model's context is cut, its end token kept."""
        return torch.stack([self._text(text) for text in texts])

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        if text in self.known:
            return self.known[text]
        tokens = torch.tensor([self.tokens(text)], device=self.model.device)
        return remember(self.known, text, unit(self.model.get_text_features(input_ids=tokens))[0])


class ClipReward:
    """A function of cos(picture, prompt).

    Args:
        scale: "cosine", in [-1, 1] (HPSv2.1); "logit", exp(logit_scale) * cos, about 18 to 24 (PickScore); "percent",
            max(100 * cos, 0) (CLIPScore).
        clean: what is done to a prompt before it is split into tokens.
    """

    def __init__(
        self, encoder: ClipEncoder, preprocess: Preprocess, scale: str = "cosine", clean: Callable[[str], str] = str
    ):
        if scale not in SCALES:
            raise RewardError(f"CLIP reward: scale must be one of {', '.join(SCALES)}, got {brief(scale)}")
        self.encoder, self.preprocess, self.scale, self.clean = encoder, preprocess, scale, clean

    def to(self, device: str | torch.device) -> "ClipReward":
        self.encoder.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pictures = self.encoder.images(self.preprocess(images))  # [N, D]
        cosine = (pictures * self.encoder.texts([self.clean(p) for p in prompts])).sum(-1)
        return SCALES[self.scale](cosine, self.encoder.logit_scale).to(images.device)


_loaded: WeakValueDictionary[tuple[object, ...], ClipEncoder] = WeakValueDictionary()


def load_encoder(path: Path, device: str, dtype: str, activation: str = "") -> ClipEncoder:
    """The CLIP of a file or folder, one for all rewards that use it alike. Raises RewardError."""
    kind = pick_dtype(dtype, device)
    key = (path.resolve(), device, kind, activation)
    encoder = _loaded.get(key)
    if encoder is None:
        encoder = _loaded[key] = ClipEncoder(*read_clip(path, activation), device, kind)
    return encoder


def image_settings(path: Path) -> dict[str, Any]:
    """Arguments of Preprocess by the folder's image processor; of a file, none: CLIP's own."""
    if not (path / "config.json").is_file():
        return {}
    # transformers 4 keeps them in a file of their own, transformers 5 with the processor's
    own, joint = path / "preprocessor_config.json", path / "processor_config.json"
    try:
        settings = json.loads((own if own.is_file() else joint).read_text("utf-8"))
        settings = settings if own.is_file() else settings["image_processor"]
        shortest, size = (_edge(settings.get(key, 224)) for key in ("size", "crop_size"))
        return {"size": size, "mean": settings["image_mean"], "std": settings["image_std"], "shortest": shortest}
    except FileNotFoundError:
        raise RewardError(f"CLIP reward: {path} is not a CLIPModel folder, {own.name} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RewardError(f"CLIP reward: {own} does not say how pictures are prepared ({brief(error)})") from error


def _edge(size: int | dict[str, int]) -> int:
    """Pixels; a plain number in old files."""
    return size if isinstance(size, int) else size.get("shortest_edge") or size["height"]


def unit(features: "Tensor | BaseModelOutputWithPooling") -> Tensor:
    """Unit vectors, float32. transformers 5 returns an output object, and 4 returned the tensor."""
    tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(tensor.float(), dim=-1)
