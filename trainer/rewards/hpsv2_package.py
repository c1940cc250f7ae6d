"""HPSv2.1 by the `hpsv2` package's own model code and transform, if the package is installed.

Its scores are those of the kind "hpsv2.1", which needs no package. Three things keep the package (1.2.0) from being
imported as it comes: it imports `clint` and `turtle` for a progress bar and by mistake, and its wheel lacks the
vocabulary of its tokeniser. They are put in its place while it is imported. Its `score` function, which loads the
checkpoint anew at every call, is not used.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ..models.storage.visiting import Visitor
from .clip import remember
from .clip_files import configuration, transformers_names
from .clip_tokens import as_open_clip, clip_tokens
from .errors import RewardError
from .tensor_files import read_tensors
from .weights import find

PACKAGE = "hpsv2.src.open_clip"
STAND_INS = {  # module -> what the package takes from it
    "clint": (),
    "clint.textui": ("progress",),
    "turtle": ("forward",),
    f"{PACKAGE}.tokenizer": ("HFTokenizer", "tokenize", "SimpleTokenizer", "decode"),
}


class Hpsv2Reward:
    """cos(picture, prompt) by hpsv2's `CLIP`, float32."""

    def __init__(self, tensors: dict[str, Tensor], file: Path):
        package = load_package()
        try:
            self.model = package.CLIP(**settings(tensors))
            self.model.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RewardError(f"hpsv2: {file} does not fit the package's model ({reason})") from error
        self.model.eval().requires_grad_(False)
        transform = package.image_transform(self.model.visual.image_size[0], is_train=False, resize_longest_max=True)
        self.resize, self.normalise = transform.transforms[2:]  # after those that make tensors of PIL pictures
        self.visitor = Visitor(self.model)
        self.texts: dict[str, Tensor] = {}  # prompt -> unit vector [D]

    def to(self, device: str | torch.device) -> "Hpsv2Reward":
        self.visitor.to(device)
        self.texts = {prompt: vector.to(device) for prompt, vector in self.texts.items()}
        return self

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = torch.stack([self.normalise(self.resize(image)) for image in images])
        pictures = self.model.encode_image(pixels.to(self.model.logit_scale.device), normalize=True)
        texts = torch.stack([self._text(prompt) for prompt in prompts])
        return (pictures * texts).sum(-1).to(images.device)

    def _text(self, prompt: str) -> Tensor:
        if prompt in self.texts:
            return self.texts[prompt]
        length = len(self.model.positional_embedding)
        tokens = clip_tokens(length)(as_open_clip(prompt))
        padded = torch.tensor([tokens + [0] * (length - len(tokens))], device=self.model.logit_scale.device)
        return remember(self.texts, prompt, self.model.encode_text(padded, normalize=True)[0])


def hpsv2(device: str, path: str = "") -> Hpsv2Reward:
    """`path`: a checkpoint in OpenCLIP's names; HPS_v2.1_compressed.pt if that is empty."""
    file = find("hpsv2.1", path)
    tensors = {name: tensor.float() for name, tensor in read_tensors(file).items()}
    return Hpsv2Reward(tensors, file).to(device)


def load_package() -> ModuleType:
    """hpsv2's copy of open_clip. Raises RewardError if the package is not installed."""
    if find_spec("hpsv2") is None:
        raise RewardError(
            "hpsv2: the package is not installed: run `pip install --no-deps hpsv2==1.2.0`, or use the reward "
            "hpsv2.1, which gives the same scores without it"
        )
    try:
        with _stand_ins(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it takes timm's layers from where they were in 2023
            return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise RewardError(f"hpsv2: the package does not import ({error}): use the reward hpsv2.1 instead") from error


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Empty modules for those that the package names and never needs here."""
    added = []
    for name, attributes in STAND_INS.items():
        if name in sys.modules or (name.partition(".")[0] != "hpsv2" and _importable(name)):
            continue
        module = ModuleType(name)
        vars(module).update(dict.fromkeys(attributes))
        sys.modules[name] = module
        added.append(name)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def settings(tensors: dict[str, Tensor]) -> dict[str, object]:
    """Arguments of the package's CLIP for these tensors."""
    config = configuration(dict(transformers_names(tensors)), "gelu")
    text, vision = config["text_config"], config["vision_config"]
    return {
        "embed_dim": config["projection_dim"],
        "vision_cfg": {
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
        },
        "text_cfg": {
            "layers": text["num_hidden_layers"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "vocab_size": text["vocab_size"],
            "context_length": text["max_position_embeddings"],
        },
    }
