"""The LoRA: attached by peft, stored under the names that diffusers and ComfyUI both load."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import UserError
from ..files import written_whole

ADAPTER = "neighbor_grpo"
_ATTENTION = (
    r"(single_)?transformer_blocks\.\d+\.attn\."
    r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
)
# full paths: a bare "proj_out" would also match the model's last layer
_FEED_FORWARD = (
    r"transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)"
)
TARGETS = {"attention": _ATTENTION, "all-linear": f"{_ATTENTION}|{_FEED_FORWARD}"}


class LoraError(UserError):
    """A LoRA file that cannot be read or does not fit the model."""


def attach_lora(
    transformer: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: str,
    seed: int,
    adapter: str = ADAPTER,
    device: torch.device | None = None,
) -> dict[str, nn.Parameter]:
    """Freeze `transformer` and add a LoRA to it in place: W + alpha / rank * B A, with B = 0 at the start.

    Args:
        rank: at least 1.
        alpha: scale, above 0.
        targets: a key of TARGETS.
        seed: of A's random start; the global generator is left as it was.
        adapter: the LoRA's name; it becomes the active one.
        device: where the model computes; None is where its weights are.

    Returns:
        the trainable parameters, float32, named `<module>.lora_A.weight` and `<module>.lora_B.weight`.
    """
    if targets not in TARGETS:
        raise ValueError(f"LoRA targets must be one of {', '.join(TARGETS)}, got {targets!r}")
    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS[targets], init_lora_weights=True)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # several LoRAs on one transformer are meant
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        torch.manual_seed(seed)
        transformer.add_adapter(config, adapter_name=adapter)
    for layer in lora_layers(transformer).values():
        for half in (layer.lora_A, layer.lora_B):
            if adapter in half:
                half[adapter].to(device, torch.float32)  # updates of 1e-4 vanish in bf16; peft follows the base weight
    return lora_parameters(transformer, adapter)


def detach_lora(transformer: nn.Module, adapter: str) -> None:
    """Remove a LoRA; another one becomes the active one, if there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        transformer.delete_adapters(adapter)


def lora_layers(transformer: nn.Module) -> dict[str, LoraLayer]:
    return {name: m for name, m in transformer.named_modules() if isinstance(m, LoraLayer)}


def lora_parameters(transformer: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{half}.weight": getattr(layer, half)[adapter].weight
        for name, layer in lora_layers(transformer).items()
        for half in ("lora_A", "lora_B")
        if adapter in getattr(layer, half)
    }


@torch.no_grad()
def set_weights(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into `parameters`; both must have the same names and shapes."""
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())
        raise LoraError(f"the LoRA does not fit this model: {len(odd)} tensors differ, the first is {odd[0]}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} where the model has {tuple(parameter.shape)}"
            raise LoraError(f"the LoRA does not fit this model: {name} is {shapes}")
        parameter.copy_(weights[name])


def export_lora(path: Path, weights: Mapping[str, Tensor], alpha: float, metadata: Mapping[str, object]) -> Path:
    """Write a LoRA file of `file_tensors` and `file_metadata`; it appears whole or not at all."""
    with written_whole(path) as partial:
        save_file(file_tensors(weights, alpha), partial, metadata=file_metadata(metadata))
    return path


def file_tensors(weights: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Copies of the weights as diffusers and ComfyUI name them: `transformer.<module>.lora_A/B.weight` and `.alpha`.

    The `.alpha` tensors are there because ComfyUI scales by alpha / rank only when it finds them.
    """
    tensors = {f"transformer.{name}": w.detach().float().cpu().clone() for name, w in weights.items()}
    for name in weights:
        module, half, _ = name.rsplit(".", 2)
        if half == "lora_A":
            tensors[f"transformer.{module}.alpha"] = torch.tensor(float(alpha))
    return tensors


def file_metadata(metadata: Mapping[str, object]) -> dict[str, str]:
    """Values that are not text become JSON."""
    text = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    return {"format": "pt", **text}


def read_lora(path: Path) -> tuple[dict[str, Tensor], float, dict[str, str]]:
    """The weights, alpha and metadata of a file that `export_lora` wrote."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name.removeprefix("transformer."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise LoraError(f"{path} is not a safetensors file: {error}") from error
    alphas = {float(t) for name, t in tensors.items() if name.endswith(".alpha")}
    weights = {name: t for name, t in tensors.items() if not name.endswith(".alpha")}
    if len(alphas) != 1 or not any(name.endswith(".lora_A.weight") for name in weights):
        raise LoraError(f"{path} is not a LoRA in this project's layout (transformer.*.lora_A.weight and .alpha)")
    return weights, alphas.pop(), metadata
