"""Loading a transformer takes the memory of its weights, not twice that."""

import os
import subprocess
import sys

import pytest
import torch
from comfy_files import in_nvfp4
from diffusers import FluxTransformer2DModel
from flux_files import original_transformer, stored_as, write

MEASURE = """
import sys
import torch
from trainer.models.files.source import resolve
from trainer.models.flux1.transformer import load_transformer

def memory(kind):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind)) * 1024

small, large = map(resolve, sys.argv[1:])
load_transformer(small, dtype=torch.bfloat16)  # what is imported and allocated once is not the file's
before = memory("VmRSS")
model = load_transformer(large, dtype=torch.bfloat16)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("layout", ["original", "shards", "nvfp4"])
def test_loading_takes_no_more_memory_than_the_weights(layout, flux_schnell, tmp_path):
    with torch.device("meta"):  # 296 MB in bfloat16
        large = FluxTransformer2DModel(num_layers=2, num_single_layers=4, num_attention_heads=8)
    large = large.to(torch.bfloat16).to_empty(device="cpu")
    large.save_pretrained(tmp_path / "large/transformer")
    (tmp_path / "large/model_index.json").write_text("{}")
    size = sum(p.numel() * 2 for p in large.parameters())
    if layout == "nvfp4":
        path = write(tmp_path / "flux.safetensors", in_nvfp4(original_transformer(tmp_path / "large")))
    else:
        path = stored_as(layout, tmp_path / "large", tmp_path / "stored", torch.bfloat16)
    command = [sys.executable, "-c", MEASURE, str(flux_schnell), str(path)]
    # of layers as small as these the allocator would keep what was freed, and not give it back as for large ones
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    print(f"{layout}: {taken / size:.3f} times the weights")
    assert 0.9 * size < taken < 1.15 * size
