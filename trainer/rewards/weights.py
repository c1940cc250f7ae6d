"""Files of weights that rewards need: which, how large, whose, and where they are looked for."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import RewardError


@dataclass(frozen=True)
class Weights:
    """Weights that can be downloaded. `names`: of the file or folder, the first one is what the error asks for."""

    names: tuple[str, ...]
    size: str
    licence: str
    source: str  # where to get it
    parts: str = ""  # of a folder
    beside: str = ""  # what else is needed there

    @property
    def short(self) -> str:
        """The file or folder, its size and its source."""
        parts = f"{self.parts}, " if self.parts else ""
        return f"{'the folder ' if parts else ''}{self.names[0]} ({parts}{self.size}, from {self.source})"


FOLDER = "config.json and model.safetensors"  # of transformers

KNOWN = {
    "hpsv2.1": Weights(
        ("HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.safetensors", "HPS_v2.1"),
        "1.97 GB",
        "Apache-2.0",
        "huggingface.co/xswu/HPSv2",
    ),
    "pickscore": Weights(
        ("PickScore_v1", "PickScore_v1.safetensors"),
        "3.9 GB",
        "MIT, that of its code",
        "huggingface.co/yuvalkirstain/PickScore_v1",
        FOLDER,
    ),
    "clip-l": Weights(
        ("clip-vit-large-patch14", "clip-vit-large-patch14.safetensors"),
        "1.71 GB",
        "MIT",
        "huggingface.co/openai/clip-vit-large-patch14",
        FOLDER,
    ),
    "imagereward": Weights(
        ("ImageReward.pt", "ImageReward.safetensors"),
        "1.79 GB",
        "Apache-2.0",
        "huggingface.co/THUDM/ImageReward",
        beside="vocab.txt of bert-base-uncased",
    ),
    "aesthetic": Weights(
        ("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors"),
        "3.7 MB",
        "Apache-2.0",
        "github.com/christophschuhmann/improved-aesthetic-predictor",
    ),
}

_folders = [Path("models/rewards")]  # of the working directory, until a host says better


def look_in(folders: Iterable[str | Path]) -> None:
    """Look for weights in these folders, and no longer elsewhere."""
    _folders[:] = [Path(folder) for folder in folders]


def find(what: str, path: str | Path = "") -> Path:
    """The file or folder `path`, or, if that is empty, the known weights in the first folder that has them.

    Raises:
        RewardError: not there; says what to download, from where, and the folder to put it in.
    """
    if path:
        chosen = Path(os.path.expanduser(path))  # unlike pathlib's, it takes any text
        if not os.path.exists(chosen):
            raise RewardError(f"{what}: there is no file or folder {chosen}: correct the path, or leave it empty")
        return chosen
    known = KNOWN[what]
    for folder in _folders:
        for name in known.names:
            if (folder / name).exists():
                return folder / name
    source = f"{known.source}: {known.parts}" if known.parts else known.source
    raise RewardError(
        f"{what}: {known.names[0]} is missing ({known.size}, licence {known.licence}): "
        f"get it from {source} and put it into {_folders[0].absolute()}"
    )
