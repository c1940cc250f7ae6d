"""The embedded models: small FLUXes and CLIPs that ship with the project. See README.md in this folder."""

from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
FLUX = _HERE / "flux"  # a diffusers folder, 64 x 64 pixels
CLIP = _HERE / "clip"  # the reward that is trained on
CLIP_HELD_OUT = _HERE / "clip-heldout"  # the reward that only watches
SCENES = _HERE / "scenes" / "flux"  # another FLUX, of rows of things
SCENES_CLIP = _HERE / "scenes" / "clip"
SCENE_ORIGINALS = _HERE / "scenes" / "originals.png"  # of the scenes that are tested, one below the other
SIZE = 64  # pixels
TEXT_TOKENS = 32


@dataclass(frozen=True)
class Embedded:
    folder: Path  # of diffusers
    text_tokens: int  # of T5, that hold its longest captions


MODELS = {"embedded": Embedded(FLUX, TEXT_TOKENS), "embedded-scenes": Embedded(SCENES, 12)}  # by `model.path`


def is_embedded(path: object) -> bool:
    """Whether a `model.path`, from whomever it comes, names one of MODELS."""
    return isinstance(path, str) and path in MODELS
