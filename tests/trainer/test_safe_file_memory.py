"""What is read of a file takes the memory of its tensors, and keeps no file mapped."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flux_files import write_gguf
from mapped_files import MAPS, mapped
from raw_safetensors import library_accepts, with_header
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPModel, Dinov2Config, Dinov2Model

from trainer import tiny
from trainer.models.files.gguf_file import gguf_file
from trainer.models.files.headers import tensor_names
from trainer.models.files.opened import safetensors_files
from trainer.models.files.safe_file import read_file
from trainer.models.files.source import resolve
from trainer.models.flux1.parts import load_encoders, load_vae
from trainer.models.lora.start import read_tensors as read_lora
from trainer.models.storage.placement import Placement
from trainer.rewards.clip_files import read_clip
from trainer.rewards.references import DinoEncoder
from trainer.rewards.tensor_files import read_tensors as read_weights
from trainer.training import checkpoint

FAR = """
import mmap, resource, sys
import torch
from trainer.models.files.headers import tensor_names
from trainer.models.files.opened import safetensors_files
from pathlib import Path
from trainer.models.storage.placement import Placement
from trainer.models.storage.placement import Placement

path, taken = Path(sys.argv[1]), int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, resource.RLIM_INFINITY))
with path.open("rb") as file:
    try:
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        sys.exit("the file could be mapped: this test would show nothing")
    except OSError:
        pass
assert tensor_names(path) == ["near", "far"]
stored = safetensors_files([path])
far, near = stored["far"], stored["near"]
print(far.read().tolist(), far.read([slice(1, 2)]).tolist(), near.read([slice(5, 7)]).tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's addresses is Linux's")
def test_a_tensor_at_the_far_end_of_a_file_larger_than_memory_is_read(tmp_path):
    """In a process that may map 1 GiB and not the file's 60 GB, most of which is a hole on the disk."""
    near, far = 60_000_000_000, torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    entries = {
        "near": {"dtype": "U8", "shape": [near], "data_offsets": [0, near]},
        "far": {"dtype": "F32", "shape": [2, 2], "data_offsets": [near, near + 16]},
    }
    path = tmp_path / "large.safetensors"
    head = with_header(entries, b"")
    with path.open("wb") as file:
        file.write(head + bytes(range(10)))
        file.seek(len(head) + near)
        file.write(far.numpy().tobytes())
    assert library_accepts(path)
    command = [sys.executable, "-c", FAR, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, "[[1.0, 2.0], [3.0, 4.0]] [[3.0, 4.0]] [5, 6]\n"), done.stderr


def by_checkpoint(path: Path, _: Path) -> object:
    state = {"a": torch.randn(4, 4)}
    folder = path.parent / "checkpoint"
    checkpoint.save(folder, checkpoint.Checkpoint(1, state, state, state, {}, {}))
    return checkpoint.load(folder)


def by_torch(path: Path, _: Path) -> object:
    torch.save(read_file(path)[0], path.with_suffix(".pt"))
    return read_weights(path.with_suffix(".pt"))


def by_gguf(path: Path, _: Path) -> object:
    stored = gguf_file(write_gguf(path.with_suffix(".gguf"), {"a": (np.ones((64, 64), np.float32), None)}))
    return [tensor.read() for tensor in stored.values()]


def by_library(load):
    """A part of a diffusers folder in the precision of its file, as diffusers and transformers load it."""

    def read(path: Path, flux: Path) -> object:
        shutil.copytree(flux, path.parent / "flux")
        return load(resolve(str(path.parent / "flux")))

    return read


def by_dinov2(path: Path, _: Path) -> object:
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(path.parent / "dinov2")
    return DinoEncoder(path.parent / "dinov2", "cpu", torch.float32)


def by_clip(path: Path, _: Path) -> object:
    shutil.copytree(tiny.CLIP, path.parent / "clip")
    (path.parent / "clip/model.safetensors").unlink()
    CLIPModel.from_pretrained(tiny.CLIP).float().save_pretrained(path.parent / "clip")
    return read_clip(path.parent / "clip", "")


READINGS = {
    "model": lambda path, _: [stored.read() for stored in safetensors_files([path]).values()],
    "names": lambda path, _: tensor_names(path),
    "LoRA": lambda path, _: read_lora(path),
    "reward": lambda path, _: read_weights(path),
    "reward, PyTorch's": by_torch,
    "reward, CLIP folder": by_clip,
    "reward, DINOv2": by_dinov2,
    "checkpoint": by_checkpoint,
    "GGUF": by_gguf,
    "autoencoder": by_library(lambda source: load_vae(source, dtype=torch.float32)),
    "text encoders": by_library(lambda source: load_encoders(source, Placement("cpu", torch.float32))),
}


@pytest.mark.skipif(not MAPS.exists(), reason="what is mapped is read from /proc")
@pytest.mark.parametrize("kind", READINGS)
def test_nothing_that_was_read_keeps_its_file_mapped(kind, flux_dev, tmp_path):
    if kind == "GGUF":
        pytest.importorskip("gguf")
    path = tmp_path / "weights.safetensors"
    save_file({name: torch.randn(64, 64) for name in "abc"}, path)
    with safe_open(path, "pt") as file:
        taken = file.get_tensor("a")
    assert len(mapped(tmp_path)) > 0  # this is what would be seen
    del taken, file
    assert mapped(tmp_path) == []
    read = READINGS[kind](path, flux_dev)
    assert read
    assert mapped(tmp_path) == []
