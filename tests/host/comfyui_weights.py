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
import comfy.model_base  # noqa: E402
import comfy.supported_models  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

SMALL = {
    "image_model": "flux", "in_channels": 16, "patch_size": 2, "out_channels": 16, "vec_in_dim": 32,
    "context_in_dim": 32, "hidden_size": 32, "mlp_ratio": 4.0, "num_heads": 2, "depth": 1,
    "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 10000, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip


class Complaints(logging.Handler):
    texts: list[str]

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def patched(weight: torch.Tensor, patches: list, key: str) -> torch.Tensor:
    return comfy.lora.calculate_weight(patches, weight.clone(), key)


model = comfy.model_base.Flux(comfy.supported_models.Flux(SMALL), device="cpu")
model.diffusion_model.load_state_dict(load_file(f"{FOLDER}/base.safetensors"))
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
    save_file({n.removeprefix("diffusion_model."): t for n, t in result.items()}, file.with_suffix(".weights"))
print(json.dumps(complaints.texts))
