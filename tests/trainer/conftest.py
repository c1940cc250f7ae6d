"""The small CLIP as the files that people download, and pictures to score."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def open_clip_model():
    from small_clip import small_clip

    return small_clip()


@pytest.fixture(scope="session")
def hps_file(open_clip_model, tmp_path_factory) -> Path:
    """In the layout of HPS_v2.1_compressed.pt."""
    import torch

    path = tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 3, "name": "RGB", "state_dict": open_clip_model.state_dict()}, path)
    return path


@pytest.fixture
def pictures():
    """Smooth random pictures of 8 bits, [N, 3, height, width] in [0, 1]."""
    import torch
    import torch.nn.functional as F

    def make(width: int, height: int, n: int = 3) -> torch.Tensor:
        rough = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(width * height))
        return (F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255

    return make
