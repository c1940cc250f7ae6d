"""What ComfyUI makes of a small FLUX's weights with each of some LoRA files. In a process of its own.

usage: python comfyui_weights.py COMFYUI FOLDER

FOLDER holds base.safetensors, a FLUX under Black Forest Labs' names, and LoRAs, <name>.lora. Writes <name>.weights, and
prints what ComfyUI complained about.
"""

import json
import logging
import sys
from pathlib import Path

import torch

COMFYUI, FOLDER = sys.argv[1:]
del sys.argv[1:]  # ComfyUI reads them too
sys.path[:0] = [COMFYUI, str(Path(__file__).parents[2])]

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.lora  # noqa: E402
import comfy.lora_convert  # noqa: E402
import flux_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

SMALL = {
    "vec_in_dim": 32, "context_in_dim": 32, "hidden_size": 32, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
}  # fmt: skip


class Complaints(logging.Handler):
    texts: list[str]

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def patched(weight: torch.Tensor, patches: list, key: str) -> torch.Tensor:
    return comfy.lora.calculate_weight(patches, weight.clone(), key)


model = flux_model.flux("cpu", **SMALL)
flux_model.load(model, load_file(f"{FOLDER}/base.safetensors"))
weights = {name: weight.float() for name, weight in model.state_dict().items()}
keys = comfy.lora.model_lora_keys_unet(model, {})
complaints = Complaints()
complaints.texts = []
logging.getLogger().addHandler(complaints)
for file in sorted(Path(FOLDER).glob("*.lora")):
    tensors = comfy.lora_convert.convert_lora(load_file(file))
    result = dict(weights)
    for target, adapter in comfy.lora.load_lora(tensors, keys).items():
        # a target is a weight, or a slice of one, whose values a function may have to change
        name, offset, function = (*target, None, None)[:3] if isinstance(target, tuple) else (target, None, None)
        patch = (1.0, adapter, 1.0, offset, function)
        result[name] = patched(result[name], [patch], name)
    save_file({flux_model.original(name): t for name, t in result.items()}, file.with_suffix(".weights"))
print(json.dumps(complaints.texts))
