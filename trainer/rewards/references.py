"""Nearness to reference pictures, by CLIP's or DINOv2's eyes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import brief
from ..models.files.headers import read_config
from ..models.files.safe_file import unmap
from ..models.storage.visiting import Visitor
from ..picture_files import SUFFIXES, PictureError, read_picture
from .base import pick_dtype
from .clip import ClipEncoder, image_settings, unit
from .clip_kinds import load_any
from .errors import RewardError
from .preprocess import Preprocess
from .tensor_files import MISFITS
from .weights import find

COMPARISONS = ("mean", "best")


class DinoEncoder:
    """Pictures as unit vectors by DINOv2 (Oquab et al. 2023): the class token of the last layer."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype):
        from transformers import Dinov2Model

        try:
            read_config(folder / "config.json")
            model, info = Dinov2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except (OSError, SafetensorError, *MISFITS) as error:
            raise RewardError(f"DINOv2: {folder} does not load ({' '.join(str(error).split())[:200]})") from error
        if info["missing_keys"]:
            raise RewardError(f"DINOv2: {folder} lacks {min(info['missing_keys'])}: it is another model, or cut")
        unmap(model)
        self.model = model.eval().requires_grad_(False).to(device, dtype)
        self.visitor = Visitor(self.model)

    def to(self, device: str | torch.device) -> "DinoEncoder":
        self.visitor.to(device)
        return self

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Preprocessed pictures [N, 3, H, W] -> [N, D], float32."""
        return unit(self.model(pixel_values=pixels.to(self.model.device, self.model.dtype)))


class ReferenceSimilarity:
    """Mean or best cosine to the vectors of reference pictures, [R, D]; in [-1, 1]. Prompts are ignored."""

    def __init__(self, encoder: ClipEncoder | DinoEncoder, preprocess: Preprocess, references: Tensor, best: bool):
        self.encoder, self.preprocess, self.references, self.best = encoder, preprocess, references, best

    def to(self, device: str | torch.device) -> "ReferenceSimilarity":
        self.encoder.to(device)
        self.references = self.references.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        cosines = self.encoder.images(self.preprocess(images)) @ self.references.T  # [N, R]
        return (cosines.amax(-1) if self.best else cosines.mean(-1)).to(images.device)


def reference_similarity(
    device: str, references: str | Sequence[str], path: str = "", compare: str = "mean", dtype: str = "auto"
) -> ReferenceSimilarity:
    """`references`: a folder of pictures, or picture files. `path`: a CLIP, or a Dinov2Model folder."""
    if compare not in COMPARISONS:
        named = ", ".join(COMPARISONS)
        raise RewardError(f"reference similarity: compare must be one of {named}, got {brief(compare)}")
    files = picture_files(references)
    encoder, preprocess = load_eyes(device, path, dtype)
    vectors = torch.cat([encoder.images(preprocess(pixels_of(file))) for file in files])  # one in memory at a time
    return ReferenceSimilarity(encoder, preprocess, vectors, compare == "best")


_loaded: WeakValueDictionary[tuple[object, ...], DinoEncoder] = WeakValueDictionary()


def load_eyes(device: str, path: str, dtype: str) -> tuple[ClipEncoder | DinoEncoder, Preprocess]:
    folder = find("reference similarity", path) if path else None
    if folder is None or _model_type(folder) != "dinov2":
        return load_any(device, path, dtype)
    preprocess = Preprocess(**image_settings(folder))
    key = (folder.resolve(), device, pick_dtype(dtype, device))
    encoder = _loaded.get(key)
    if encoder is None:
        encoder = _loaded[key] = DinoEncoder(folder, device, key[-1])
    return encoder, preprocess


def _model_type(folder: Path) -> str:
    try:
        return json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def picture_files(references: str | Sequence[str]) -> list[Path]:
    """The files themselves, or the pictures of a folder by name. Raises RewardError if there are none."""
    paths = [Path(os.path.expanduser(r)) for r in ([references] if isinstance(references, str) else references)]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(p for p in paths[0].iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not paths:
        raise RewardError(f"reference similarity: no pictures ({', '.join(SUFFIXES)}) in {brief(references)}: add one")
    return paths


def pixels_of(file: Path) -> Tensor:
    """A picture [1, 3, H, W] in [0, 1]. Raises RewardError if it cannot be read."""
    try:
        picture = read_picture(str(file))
    except PictureError as error:
        raise RewardError(f"reference similarity: {error}") from None
    return torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float().div_(255)  # in place: it may be large
