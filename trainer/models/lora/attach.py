"""The LoRA: attached by peft, trained in float32. Its files are the matter of lora_export.py and lora_start.py."""

import math
import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ..storage.frozen import FrozenLinear
from ..storage.modulation import Modulator, compute_again
from .fused import FusedLora
from .targets import LoraError, target_layers

ADAPTER = "neighbor_grpo"
MAGNITUDE = "lora_magnitude_vector"
PARTS = ("lora_A", "lora_B", MAGNITUDE)


def lora_scale(alpha: float, rank: int, variant: str = "lora") -> float:
    """What B A is multiplied by: alpha / rank; rsLoRA (arXiv 2312.03732) divides by sqrt(rank) instead."""
    return alpha / (math.sqrt(rank) if variant == "rslora" else rank)


class Narrow(nn.Linear):
    """A or B of a bfloat16 model: float32 weights, rounded at each use to the precision of what they are fed.

    What autograd keeps is then the model's own input; peft would keep a float32 copy of it for every layer.
    """

    def __init__(self, wide: nn.Linear):
        super().__init__(wide.in_features, wide.out_features, bias=False, device="meta")
        self.weight = wide.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def attach_lora(
    network: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: str,
    presets: Mapping[str, str] = MappingProxyType({}),
    seed: int,
    adapter: str = ADAPTER,
    variant: str = "lora",
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, nn.Parameter]:
    """Freeze `network` and add a LoRA to it in place: W + scale * B A, with B = 0 at the start.

    DoRA (arXiv 2402.09353) then gives each row of that sum a trained length m, which starts as the row of W has it.

    Args:
        rank: at least 1.
        alpha: see `lora_scale`, above 0.
        targets: a key of `presets`, or a regular expression that matches whole module paths.
        seed: of A's random start; the global generator is left as it was.
        adapter: the LoRA's name; it becomes the active one.
        variant: "lora", "rslora" or "dora".
        device: where the model computes; None is where its weights are.
        dtype: what it computes in. In bfloat16 a LoRA is multiplied as `Narrow` does; in float16, whose range is small
            for gradients, and for DoRA, which compares lengths of rows, in float32.

    Returns:
        the trainable parameters, float32, named `<module>.lora_A.weight`, `<module>.lora_B.weight` and, for DoRA,
        `<module>.lora_magnitude_vector.weight`.

    Raises:
        LoraError: no layer matches `targets`, or DoRA cannot read the frozen weights.
    """
    layers = target_layers(network, targets, presets)
    if any(isinstance(layer, Modulator) for layer in layers.values()):
        compute_again(network)
        layers = target_layers(network, targets, presets)
    if variant == "dora":
        _plain_weights(layers)
    network.requires_grad_(False)
    exactly = "|".join(map(re.escape, layers))  # peft would take other kinds of modules for targets, or refuse them
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=exactly,
        init_lora_weights=True,
        use_rslora=variant == "rslora",
        use_dora=variant == "dora",
    )
    if all(_ours(layer) for layer in layers.values()):
        config._register_custom_module({nn.Linear: FusedLora})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # several LoRAs on one network are meant
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, adapter)
    for layer in lora_layers(network).values():
        for half in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            if adapter in half:
                half[adapter].to(device, torch.float32)  # updates of 1e-4 vanish in bf16; peft follows the base weight
        if adapter in layer.lora_A and dtype == torch.bfloat16 and variant != "dora":
            layer.lora_A[adapter], layer.lora_B[adapter] = Narrow(layer.lora_A[adapter]), Narrow(layer.lora_B[adapter])
    activate_lora(network, adapter)
    parameters = lora_parameters(network, adapter)
    if variant == "dora":
        for name, layer in layers.items():
            # peft's start is rounded to the model's precision: the LoRA would change the model before any training
            parameters[f"{name}.{MAGNITUDE}.weight"].data = row_norms(layer.weight)
    return parameters


def _ours(layer: nn.Linear) -> bool:
    """Whether `FusedLora` takes the layer: bitsandbytes' have a LoRA of their own in peft."""
    return type(layer) is nn.Linear or isinstance(layer, FrozenLinear)


def _plain_weights(layers: Mapping[str, nn.Linear]) -> None:
    """DoRA reads W itself, and not only what W makes of its input."""
    for name, layer in layers.items():
        if type(layer) is not nn.Linear:
            raise LoraError(
                f"lora.variant = 'dora': the weights of {name} are stored in {type(layer).__name__}, and DoRA needs "
                "them as they are: set model.memory = 'bf16' and model.offload = 0, or use 'lora' or 'rslora'"
            )


def row_norms(weight: Tensor) -> Tensor:
    """Lengths of a weight's rows [out, in], float32: [out]."""
    return torch.linalg.norm(weight.detach().float(), dim=1)


def activate_lora(network: nn.Module, adapter: str) -> None:
    """Make this LoRA the one in use: several may share a network."""
    for layer in lora_layers(network).values():
        layer.set_adapter([adapter])
        # peft casts what it feeds to the weights' float32, which is what Narrow is there to avoid
        layer.cast_input_dtype_enabled = not (adapter in layer.lora_A and isinstance(layer.lora_A[adapter], Narrow))


def enable_loras(network: nn.Module, enabled: bool) -> None:
    """Whether the LoRAs of a network count."""
    for layer in lora_layers(network).values():
        layer.enable_adapters(enabled)


def detach_lora(network: nn.Module, adapter: str) -> None:
    """Remove a LoRA; another one becomes the active one, if there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        for layer in lora_layers(network).values():
            layer.delete_adapter(adapter)
    vars(network)["peft_config"].pop(adapter)


def adapters(network: nn.Module) -> list[str]:
    """The names of a network's LoRAs."""
    return list(vars(network).get("peft_config", {}))


def lora_layers(network: nn.Module) -> dict[str, LoraLayer]:
    return {name: m for name, m in network.named_modules() if isinstance(m, LoraLayer)}


def lora_parameters(network: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{part}.weight": getattr(layer, part)[adapter].weight
        for name, layer in lora_layers(network).items()
        for part in PARTS
        if adapter in getattr(layer, part)
    }


@torch.no_grad()
def set_weights(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into `parameters`; both must have the same names and shapes."""
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())
        raise LoraError(f"the LoRA does not fit this model: {len(odd)} tensors differ, the first is {odd[0]}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} and the model has {tuple(parameter.shape)}"
            raise LoraError(f"the LoRA does not fit this model: {name} is {shapes}")
        parameter.copy_(weights[name])
