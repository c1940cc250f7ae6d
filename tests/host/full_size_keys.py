"""Does every key of our LoRA find a layer of ComfyUI's FLUX.1-dev, and every weight of its file one of ours?

In a process of its own, as ComfyUI claims names.

usage: python full_size_keys.py COMFYUI TARGETS   prints one JSON object
"""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

COMFYUI, TARGETS = sys.argv[1:]
del sys.argv[1:]  # ComfyUI reads them too
sys.path[:0] = [COMFYUI, str(Path(__file__).parents[2])]

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.lora  # noqa: E402
import flux_model  # noqa: E402
from diffusers import FluxTransformer2DModel  # noqa: E402

from trainer.models.files.weights import complaint  # noqa: E402
from trainer.models.flux1.lora_names import TARGETS as PRESETS  # noqa: E402
from trainer.models.flux1.single_file import transformer_pieces  # noqa: E402
from trainer.models.lora.attach import attach_lora  # noqa: E402
from trainer.models.lora.export import file_tensors  # noqa: E402

FLUX_DEV = {
    "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "num_heads": 24, "depth": 19,
    "depth_single_blocks": 38, "axes_dim": [16, 56, 56],
}  # fmt: skip


class Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def fits(layer: object, adapter: object, sizes: dict[str, torch.Size]) -> bool:
    """Whether the LoRA's B A has the shape of the weight, or of the slice of it, that it is for."""
    name, offset = layer if isinstance(layer, tuple) else (layer, None)
    up, down = adapter.weights[:2]
    rows = sizes[name][0] if offset is None else offset[2]
    return (up.shape[0], down.shape[1]) == (rows, sizes[name][1])


with torch.device("meta"):
    theirs = flux_model.flux("meta", **FLUX_DEV)
    ours = FluxTransformer2DModel(guidance_embeds=True)
    file = {flux_model.original(name): t for name, t in theirs.diffusion_model.state_dict().items()}
    pieces = transformer_pieces({n: SimpleNamespace(shape=tuple(t.shape), dtype="BF16") for n, t in file.items()})
    misfit = complaint(ours, pieces)
    parameters = attach_lora(ours, rank=4, alpha=8, targets=TARGETS, presets=PRESETS, seed=0)
weights = {name: torch.zeros(p.shape) for name, p in parameters.items()}
complaints = Complaints()
logging.getLogger().addHandler(complaints)
loaded = comfy.lora.load_lora(file_tensors(weights, 8.0), comfy.lora.model_lora_keys_unet(theirs, {}))
sizes = {name: t.shape for name, t in theirs.state_dict().items()}
report = {
    "modules": len(parameters) // 2,
    "loaded": len(loaded),
    "shapes_that_fit": sum(fits(layer, adapter, sizes) for layer, adapter in loaded.items()),
    "complaints": complaints.texts[:3],
    "file_tensors": len(file),
    "misfit_of_the_file": misfit,
}
print(json.dumps(report))
