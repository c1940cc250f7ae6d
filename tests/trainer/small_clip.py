"""A small CLIP of random weights by OpenCLIP, and texts that tokenisers stumble over."""

import torch

CLIP_SIZE = 56  # pixels
CLIP_SETTINGS = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": CLIP_SIZE, "layers": 2, "width": 128, "head_width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
TEXTS = {
    "short": "a red apple",
    "empty": "",
    "500 words": " ".join(f"word{n}" for n in range(500)),
    "not Latin": "北京的天空, красный дом, 😀 ok",
    "quotes": "“a sign that says ‘OPEN’” &amp; it’s blue",
    "accents": "Crème brûlée,\n two\tlines",
}


def small_clip(**settings: object) -> torch.nn.Module:
    import open_clip  # here, for the tests that need no CLIP

    torch.manual_seed(0)
    return shaken(open_clip.CLIP(**CLIP_SETTINGS, **settings))


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """With biases and norms away from 0 and 1, so that a lost or swapped one shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)
