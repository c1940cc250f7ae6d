#!/usr/bin/env python3
"""HPSv2.1 at full size against the hpsv2 package: one ViT-H-14 of random weights, 986 million of them, float32.

usage: python tests/parity_vit_h.py [FILE]

Not part of the tests, as it takes 4 GB of disk, 10 GB of memory and some minutes. FILE: where the checkpoint is written
and removed again, default: in the temporary folder. Exit code 1 if a score differs by more than 1e-5.
"""

import gc
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainer.rewards import build
from trainer.rewards.hpsv2_package import load_package

TEXTS = [
    "a red apple on a blue background",
    "",
    "“a sign that says ‘OPEN’”, 北京",
    " ".join(f"word{n}" for n in range(500)),
]
SIZES = [(512, 512), (768, 432)]  # pixels, height and width
LIMIT = 1e-5


def pictures(height: int, width: int) -> torch.Tensor:
    rough = torch.rand(len(TEXTS), 3, 16, 16, generator=torch.Generator().manual_seed(height))
    return F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1)


def write(path: Path) -> None:
    """A checkpoint in the layout of HPS_v2.1_compressed.pt; biases and norms random too."""
    torch.manual_seed(0)
    open_clip = load_package()
    model = open_clip.CLIP(**open_clip.get_model_config("ViT-H-14"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    torch.save({"state_dict": model.state_dict()}, path)


def scores(kind: str, path: Path) -> list[torch.Tensor]:
    started = time.monotonic()
    reward = build(kind, {"path": str(path)}, "cpu")
    found = [reward.score(pictures(*size), TEXTS) for size in SIZES]
    print(f"{kind}: {time.monotonic() - started:.0f} s", flush=True)
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/HPS_v2.1_random.pt")
        write(path)
        gc.collect()
        try:
            theirs = scores("hpsv2", path)
            gc.collect()  # one model at a time
            ours = scores("hpsv2.1", path)
        finally:
            path.unlink()
    worst = 0.0
    for size, a, b in zip(SIZES, ours, theirs, strict=True):
        worst = max(worst, (a - b).abs().max().item())
        print(f"{size[0]} x {size[1]} pixels: ours {a.tolist()}, hpsv2's {b.tolist()}")
    print(f"largest difference {worst:.2e}")
    return int(not worst <= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
