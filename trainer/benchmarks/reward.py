"""What a CLIP reward costs beside the bare forward of its vision model."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..device import pick_device, synchronize
from ..rewards.clip import ClipEncoder, ClipReward, load_encoder
from ..rewards.preprocess import Preprocess

SHAPES = {"projection_dim": 512, "text_config": {"vocab_size": 49408}, "vision_config": {"patch_size": 32}}  # ViT-B/32
PROMPT = "red apple on a blue background"


def measure(path: str, device: str, batch: int, edge: int, pairs: int) -> dict[str, float]:
    """Alternate a whole scoring of `batch` pictures of `edge` pixels and the vision model on prepared pixels.

    The prompts are known, as they are from the second iteration on.

    Args:
        path: a CLIP; empty: a ViT-B/32 of random weights, the model in whose cost preparing pictures shows most.

    Returns medians in seconds, and the median of the pairwise ratios.
    """
    device = pick_device(device)
    encoder = load_encoder(Path(path), device, "auto") if path else random_encoder(device)
    reward = ClipReward(encoder, Preprocess(encoder.size, letterbox=True))
    images = torch.rand(batch, 3, edge, edge * 3 // 4, generator=torch.Generator().manual_seed(0)).to(device)
    pixels = reward.preprocess(images).to(encoder.model.dtype)

    def score() -> Tensor:
        return reward.score(images, [PROMPT] * batch)

    @torch.no_grad()
    def bare() -> object:
        return encoder.model.get_image_features(pixel_values=pixels)

    for warm_up in (score, bare, score, bare):
        warm_up()
    seconds = [(_seconds(score, device), _seconds(bare, device)) for _ in range(pairs)]
    return {
        "reward_seconds": statistics.median(a for a, _ in seconds),
        "bare_seconds": statistics.median(b for _, b in seconds),
        "ratio": statistics.median(a / b for a, b in seconds),
        "lowest_ratio": min(a / b for a, b in seconds),
        "highest_ratio": max(a / b for a, b in seconds),
        "batch": batch,
        "edge": edge,
        "pairs": pairs,
    }


def random_encoder(device: str) -> ClipEncoder:
    from transformers import CLIPConfig, CLIPModel

    from ..rewards.base import pick_dtype
    from ..rewards.clip_tokens import clip_tokens

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**SHAPES)).eval().requires_grad_(False)
    return ClipEncoder(model, clip_tokens(77), device, pick_dtype("auto", device))


def _seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def table(result: dict[str, float]) -> str:
    return (
        f"reward {result['reward_seconds']:.3f} s for {result['batch']} pictures of {result['edge']} pixels, its bare "
        f"vision model {result['bare_seconds']:.3f} s: ratio {result['ratio']:.3f} ({result['lowest_ratio']:.3f} to "
        f"{result['highest_ratio']:.3f}, median of {result['pairs']} pairs)"
    )
