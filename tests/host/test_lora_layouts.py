"""A LoRA changes every weight alike in ComfyUI and in the trainer: files that we write, and files that we read."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from comfy_install import ROOT
from diffusers import FluxTransformer2DModel
from lora_files import FORMATS, merged, write
from original_names import original_layout
from safetensors.torch import load_file, save_file

from trainer.models.flux1 import lora_names
from trainer.models.flux1.lora_names import TARGETS
from trainer.models.lora.attach import ADAPTER, attach_lora, set_weights
from trainer.models.lora.export import file_tensors
from trainer.models.lora.start import start_from

ALPHA = 6.0
OURS = {f"{variant}-{layout}": (variant, layout) for variant in ("lora", "rslora") for layout in ("diffusers", "kohya")}
OURS["dora-diffusers"] = ("dora", "diffusers")
# PEFT's own names and bare ones are for diffusers: ComfyUI knows them of other models only
THEIRS = [kind for kind in FORMATS if kind not in ("PEFT", "diffusers, a model's own")]


@pytest.fixture(scope="module")
def base(flux_dev):
    return FluxTransformer2DModel.from_pretrained(flux_dev, subfolder="transformer")


@pytest.fixture(scope="module")
def folder(base, comfyui, tmp_path_factory):
    """LoRA files in our layouts and others' formats, with the weights that the trainer and ComfyUI make of each."""
    folder = tmp_path_factory.mktemp("layouts")
    save(original_layout(base), folder / "base.safetensors")
    for name, (variant, layout) in OURS.items():
        transformer, lora = attached(base, variant)
        generator = torch.Generator().manual_seed(3)
        noise = {n: torch.randn(p.shape, generator=generator) for n, p in lora.items()}
        set_weights(lora, {n: p * (1 + 0.3 * noise[n]) if p.ndim == 1 else 0.3 * noise[n] for n, p in lora.items()})
        names = lora_names if layout == "kohya" else None
        tensors = file_tensors(lora, ALPHA, variant=variant, names=names, network=transformer)
        save(tensors, folder / f"{name}.lora")
        save(original_layout(merged(transformer, ADAPTER, deepcopy(base))), folder / f"{name}.ours")
    for name in THEIRS:
        save(write(name, base, 4)[0], folder / f"{name}.lora")
        transformer, lora = attached(base, "lora")
        start_from(folder / f"{name}.lora", transformer, ADAPTER, lora, lora_names)
        save(original_layout(merged(transformer, ADAPTER, deepcopy(base))), folder / f"{name}.ours")
    command = [sys.executable, ROOT / "tests/host/comfyui_weights.py", comfyui, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []  # no key that ComfyUI could not place
    return folder


def save(tensors, path):
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, path)


def attached(base, variant):
    transformer = deepcopy(base)
    return transformer, attach_lora(
        transformer, rank=4, alpha=ALPHA, targets="all-linear", presets=TARGETS, seed=0, variant=variant
    )


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_comfyui_and_the_trainer_make_the_same_weights(folder, name):
    before, ours = load_file(folder / "base.safetensors"), load_file(folder / f"{name}.ours")
    theirs = load_file(folder / f"{name}.weights")
    changed = 0
    for key, weight in ours.items():
        torch.testing.assert_close(theirs[key], weight, rtol=0, atol=5e-6 if "dora" in name else 1e-6)
        changed += (weight - before[key]).abs().max() > 0.1
    assert changed == 8 + 2  # the fused layers of a double and a single block
