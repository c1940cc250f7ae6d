"""The rewards that people know, each as a model, a preprocessing and a formula on the one CLIP scorer."""

from pathlib import Path

from .. import tiny
from .clip import ClipEncoder, ClipReward, image_settings, load_encoder
from .clip_tokens import as_open_clip
from .preprocess import Preprocess
from .weights import find


def clip(device: str, path: str | Path, scale: str = "cosine", dtype: str = "float32") -> ClipReward:
    """Any CLIP: the cosine of picture and prompt, prepared as its folder says."""
    encoder, preprocess = load_any(device, path, dtype)
    return ClipReward(encoder, preprocess, scale)


def tiny_clip(device: str) -> ClipReward:
    """The embedded model's own small CLIP."""
    return clip(device, tiny.CLIP)


def tiny_clip_heldout(device: str) -> ClipReward:
    """Another one, trained on other pictures, to watch with."""
    return clip(device, tiny.CLIP_HELD_OUT)


def tiny_scene_clip(device: str) -> ClipReward:
    """A small CLIP of the embedded scenes."""
    return clip(device, tiny.SCENES_CLIP)


def hpsv2_1(device: str, path: str = "", dtype: str = "auto") -> ClipReward:
    """Human Preference Score v2.1 (Wu et al. 2023): the cosine of a ViT-H-14, about 0.2 to 0.35."""
    encoder = load_encoder(find("hpsv2.1", path), device, dtype, "gelu")
    return ClipReward(encoder, Preprocess(encoder.size, letterbox=True), "cosine", as_open_clip)


def pickscore(device: str, path: str = "", dtype: str = "auto") -> ClipReward:
    """PickScore v1 (Kirstain et al. 2023): exp(logit_scale) * cos of a ViT-H-14, about 18 to 24."""
    encoder = load_encoder(find("pickscore", path), device, dtype, "gelu")
    return ClipReward(encoder, Preprocess(encoder.size), "logit")


def clipscore(device: str, path: str = "", dtype: str = "auto") -> ClipReward:
    """CLIPScore as max(100 * cos, 0) of OpenAI's ViT-L-14 (Hessel et al. 2021 multiply by 2.5 instead of 100)."""
    encoder = load_openai_clip(device, path, dtype)
    return ClipReward(encoder, Preprocess(encoder.size), "percent")


def load_openai_clip(device: str, path: str, dtype: str) -> ClipEncoder:
    """OpenAI's ViT-L-14, or what `path` says, with the activation of OpenAI's models."""
    return load_encoder(find("clip-l", path), device, dtype, "quick_gelu")


def load_any(device: str, path: str | Path, dtype: str) -> tuple[ClipEncoder, Preprocess]:
    """The CLIP at `path` (OpenAI's ViT-L-14 if that is empty), prepared as its own folder says."""
    if not path:
        encoder = load_openai_clip(device, "", dtype)
        return encoder, Preprocess(encoder.size)
    found = find("clip", path)
    settings = image_settings(found)  # before the model, which takes longer to load
    encoder = load_encoder(found, device, dtype)
    return encoder, Preprocess(**{**settings, "size": encoder.size})
