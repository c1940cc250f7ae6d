"""ImageReward as its papers define it, in plain torch on tensors in their original names and shapes."""

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD = ((0, 1024), (2, 128), (4, 64), (6, 16), (7, 1))  # number in mlp.layers, width
HEAD_WIDTH = 64


def layout(
    width: int,
    depth: int,
    text: int,
    layers: int,
    words: int,
    *,
    positions: int = 512,
    size: int = 224,
    patch: int = 16,
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything in ImageReward.pt. At full size: 1024, 24, 768, 12, 30524."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, wide: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (wide,)

    vision, bert = "blip.visual_encoder", "blip.text_encoder"
    shapes[f"{vision}.cls_token"] = (1, 1, width)
    shapes[f"{vision}.pos_embed"] = (1, (size // patch) ** 2 + 1, width)
    shapes[f"{vision}.patch_embed.proj.weight"] = (width, 3, patch, patch)
    shapes[f"{vision}.patch_embed.proj.bias"] = (width,)
    for block in (f"{vision}.blocks.{n}" for n in range(depth)):
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", 4 * width, width)
        linear(f"{block}.mlp.fc2", width, 4 * width)
    norm(f"{vision}.norm", width)
    shapes[f"{bert}.embeddings.position_ids"] = (1, positions)
    shapes[f"{bert}.embeddings.word_embeddings.weight"] = (words, text)
    shapes[f"{bert}.embeddings.position_embeddings.weight"] = (positions, text)
    norm(f"{bert}.embeddings.LayerNorm", text)
    for layer in (f"{bert}.encoder.layer.{n}" for n in range(layers)):
        for attention, into in (("attention", text), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", text, text)
            linear(f"{layer}.{attention}.self.key", text, into)
            linear(f"{layer}.{attention}.self.value", text, into)
            linear(f"{layer}.{attention}.output.dense", text, text)
            norm(f"{layer}.{attention}.output.LayerNorm", text)
        linear(f"{layer}.intermediate.dense", 4 * text, text)
        linear(f"{layer}.output.dense", text, 4 * text)
        norm(f"{layer}.output.LayerNorm", text)
    linear("blip.vision_proj", 256, width)
    linear("blip.text_proj", 256, text)
    into = text
    for n, out in HEAD:
        linear(f"mlp.layers.{n}", out, into)
        into = out
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights under which every part of the model shows in the score, scaled by what enters them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("position_ids"):
            tensors[name] = torch.arange(shape[1])[None]
        elif "norm" in name.lower():
            tensors[name] = 0.2 * noise + name.endswith("weight")
        elif len(shape) > 1 and "embed" not in name.partition("patch_")[0]:
            tensors[name] = noise / noise[0].numel() ** 0.5
        else:
            tensors[name] = 0.5 * noise
    return tensors


def score(w: dict[str, Tensor], pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Normalised pixels [N, 3, size, size], tokens and mask [N, L] -> scores [N]."""
    seen = vision(w, pixels)
    h = text(w, tokens, mask, seen)[:, 0]
    for n, _ in HEAD:
        h = _linear(w, f"mlp.layers.{n}", h)
    return (h[:, 0] - 0.16717362830052426) / 1.0333394966054072


def vision(w: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """A vision transformer that normalises first (Dosovitskiy et al. 2021)."""
    root = "blip.visual_encoder"
    kernel = w[f"{root}.patch_embed.proj.weight"]
    patches = F.conv2d(pixels, kernel, w[f"{root}.patch_embed.proj.bias"], stride=kernel.shape[-1])
    x = patches.flatten(2).transpose(1, 2)  # [N, patches, D]
    x = torch.cat([w[f"{root}.cls_token"].expand(len(x), -1, -1), x], 1) + w[f"{root}.pos_embed"]
    for block in _numbered(w, f"{root}.blocks"):
        q, k, v = _linear(w, f"{block}.attn.qkv", _norm(w, f"{block}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + _linear(w, f"{block}.attn.proj", _attend(q, k, v))
        hidden = F.gelu(_linear(w, f"{block}.mlp.fc1", _norm(w, f"{block}.norm2", x, 1e-6)))
        x = x + _linear(w, f"{block}.mlp.fc2", hidden)
    return _norm(w, f"{root}.norm", x, 1e-6)


def text(w: dict[str, Tensor], tokens: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
    """BERT, which normalises last, with attention to the picture in each layer (Li et al. 2022)."""
    root = "blip.text_encoder"
    words, positions = (w[f"{root}.embeddings.{kind}_embeddings.weight"] for kind in ("word", "position"))
    x = _norm(w, f"{root}.embeddings.LayerNorm", words[tokens] + positions[: tokens.shape[1]])
    for layer in _numbered(w, f"{root}.encoder.layer"):
        for attention, other, visible in (("attention", None, mask), ("crossattention", seen, None)):
            source = x if other is None else other
            q = _linear(w, f"{layer}.{attention}.self.query", x)
            k, v = (_linear(w, f"{layer}.{attention}.self.{part}", source) for part in ("key", "value"))
            out = _linear(w, f"{layer}.{attention}.output.dense", _attend(q, k, v, visible))
            x = _norm(w, f"{layer}.{attention}.output.LayerNorm", out + x)
        hidden = F.gelu(_linear(w, f"{layer}.intermediate.dense", x))
        x = _norm(w, f"{layer}.output.LayerNorm", _linear(w, f"{layer}.output.dense", hidden) + x)
    return x


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(d)) v by heads, on [N, L, D]; `visible` [N, L] is 0 where a key does not count."""
    q, k, v = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (q, k, v))  # [N, heads, L, d]
    logits = q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5
    if visible is not None:
        logits = logits.masked_fill(visible[:, None, None] == 0, float("-inf"))
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-12) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    return centred * scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def _numbered(w: dict[str, Tensor], prefix: str) -> list[str]:
    count = len({name.removeprefix(f"{prefix}.").split(".")[0] for name in w if name.startswith(f"{prefix}.")})
    return [f"{prefix}.{n}" for n in range(count)]
