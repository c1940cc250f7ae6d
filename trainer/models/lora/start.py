"""Going on from a LoRA file, under whichever of the names that ComfyUI accepts for FLUX it was written."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files.headers import damage, tensor_names
from ..files.safe_file import DamagedFile, read_file
from .attach import MAGNITUDE, lora_layers, row_norms
from .endings import ENDINGS
from .kinds import TEXT_ENCODERS, refuse_other_kinds, shown
from .names import LayerNames
from .scales import Scales, read_scales
from .targets import LoraError, linear_layers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """The LoRA of one module: W + scale * up @ down, and for DoRA each row of that times dora / ||row of W||."""

    up: Tensor  # [out, rank], float32
    down: Tensor  # [rank, in], float32
    scale: float
    dora: Tensor | None = None  # [out]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Everything in a safetensors file, and its metadata.

    Raises:
        LoraError: it is no such file.
    """
    try:
        return read_file(path)
    except (OSError, DamagedFile) as error:
        raise LoraError(damage(path, error)) from error


def read_factors(path: Path, sizes: Mapping[str, tuple[int, int]], names: LayerNames) -> dict[str, Factors]:
    """A file's LoRA by the modules of diffusers' transformer.

    A layer without `.alpha` has the scale that the file's header gives, see `Scales`, or 1 as in ComfyUI. The text
    encoders are not trained here, so their part of a file is left out with a warning: refusing it would shut out the
    files of whole trainers, which write it always.

    Args:
        sizes: (out, in) of every linear layer of the transformer.
        names: of the model's family.

    Raises:
        LoraError: not a LoRA, a name or a shape that fits no layer, numbers that are none; the first one is named.
    """
    tensors, metadata = read_tensors(path)
    layers = layers_of(path, tensors, names.spellings(sizes))
    scales = read_scales(path, metadata)
    found: dict[str, Factors] = {}
    for layer, (modules, parts) in layers.items():
        its = {part: tensors[name] for part, name in parts.items()}
        _check_numbers(path, {name: tensors[name] for name in parts.values()})
        split = _split(f"{path}: {layer}", its, {module: sizes[module] for module in modules}, scales, names)
        twice = found.keys() & split.keys()
        if twice:
            raise LoraError(f"{path}: {layer} is for {min(twice)}, for which the file has another LoRA already")
        found |= split
    return found


def layers_of(
    path: Path, tensors: Iterable[str], known: Mapping[str, list[str]]
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The layers that a file with these tensors is for: layer -> the modules it stacks, and part -> tensor's name.

    Args:
        known: what files call the model's layers, see `LayerNames.spellings`.

    Raises:
        LoraError: see `read_factors`.
    """
    text = {name for name in tensors if name.startswith(TEXT_ENCODERS)}
    refuse_other_kinds(path, {*tensors} - text)
    if text:
        log.warning("%s: %d tensors for the text encoders are left out", path, len(text))
    found: dict[str, tuple[list[str], dict[str, str]]] = {}
    for name in sorted({*tensors} - text):
        # some end like others, but only one leaves the name of a layer
        ending = next((e for e in ENDINGS if name.endswith(e) and name.removesuffix(e) in known), None)
        if ending is None:
            raise LoraError(f"{path} is not a LoRA for this FLUX: the first name that fits no layer is {shown(name)}")
        layer = name.removesuffix(ending)
        _, parts = found.setdefault(layer, (known[layer], {}))
        if ENDINGS[ending] in parts:
            raise LoraError(f"{path}: {layer} has two halves {parts[ENDINGS[ending]]} and {name}: the file is damaged")
        parts[ENDINGS[ending]] = name
    if not found:
        whose = ", but for the text encoders alone" if text else ""
        raise LoraError(f"{path} is not a LoRA: it holds no tensors for a FLUX transformer{whose}")
    return found


def modules_in(path: Path, modules: Collection[str], names: LayerNames) -> list[str]:
    """The modules, of these of a model, that a LoRA's file is for; its values are not read.

    Raises:
        LoraError: see `read_factors`.
    """
    try:
        layers = layers_of(path, tensor_names(path), names.spellings(modules))
    except (OSError, DamagedFile) as error:
        raise LoraError(damage(path, error)) from error
    return sorted({module for stacked, _ in layers.values() for module in stacked})


def _check_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises LoraError if some numbers are none: one NaN in a LoRA makes every picture black."""
    for name, tensor in tensors.items():
        alpha = name.endswith(".alpha")
        if tensor.is_complex() or not (tensor.is_floating_point() or alpha):
            raise LoraError(f"{path}: {name} is stored as {tensor.dtype}: only floating numbers are read")
        if alpha and tensor.numel() != 1:
            raise LoraError(f"{path}: {name} has {tensor.numel()} numbers and must have one: the file is damaged")
        odd = int((~tensor.float().isfinite()).sum())
        if odd:
            raise LoraError(
                f"{path}: {name} holds NaN or infinity in {odd} of {tensor.numel()} numbers: the file is damaged, or "
                "its training broke down: use an earlier save of it"
            )


def _split(
    layer: str, parts: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, int]], scales: Scales, names: LayerNames
) -> dict[str, Factors]:
    """A layer's LoRA as that of the modules it stacks: each has its rows of `up`, all have the same `down`."""
    up, down, alpha, dora = (parts.get(part) for part in ("up", "down", "alpha", "dora"))
    if up is None or down is None:
        raise LoraError(f"{layer} lacks its {'down' if down is None else 'up'} half: the file is damaged")
    rows, columns = [out for out, _ in sizes.values()], next(iter(sizes.values()))[1]
    total, rank = sum(rows), down.shape[0] if down.ndim else 0
    if up.shape != (total, rank) or down.shape != (rank, columns):
        shapes = f"{tuple(up.shape)} and {tuple(down.shape)}"
        raise LoraError(f"{layer} has the shapes {shapes}, and this model's layer is {total} x {columns}")
    if rank == 0:
        raise LoraError(f"{layer} has rank 0: the file is damaged")
    if dora is not None and tuple(dora.shape) not in ((total,), (total, 1)):
        raise LoraError(f"{layer} is a DoRA of columns ({tuple(dora.shape)}): only those of rows can be gone on from")
    doras = [None] * len(rows) if dora is None else dora.float().flatten().split(rows)
    return {
        module: Factors(
            names.turned(module, part),
            down.float(),
            scales.of(module, rank) if alpha is None else float(alpha) / rank,
            factor,
        )
        for module, part, factor in zip(sizes, up.float().split(rows), doras, strict=True)
    }


@torch.no_grad()
def start_from(
    path: Path, network: nn.Module, adapter: str, parameters: Mapping[str, Tensor], names: LayerNames
) -> None:
    """Put a file's LoRA into `parameters`, so that every layer's change of W is exactly the file's.

    The file's scale goes into B. What the file lacks in rank or layers stays as it began: A random, B = 0.

    Args:
        path: a LoRA for FLUX, see `read_factors`.
        adapter: the transformer's LoRA with these `parameters`, new from `attach_lora`.
        names: of the model's family.

    Raises:
        LoraError: no LoRA for this model, or one of a larger rank, another variant or more layers than `parameters`.
    """
    layers = dict(linear_layers(network))
    scales = {name: layer.scaling[adapter] for name, layer in lora_layers(network).items() if adapter in layer.r}
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    factors = read_factors(path, sizes, names)
    # a fused layer has rows for modules that its LoRA leaves as they are
    factors = {module: f for module, f in factors.items() if module in scales or f.dora is not None or f.up.any()}
    outside = sorted(factors.keys() - scales.keys())
    if outside:
        raise LoraError(
            f"{path} changes {len(outside)} layers that lora.targets leaves out, the first is {outside[0]}: "
            "set lora.targets to an expression that matches them too"
        )
    for module, file in factors.items():
        a, b = (parameters[f"{module}.lora_{half}.weight"] for half in "AB")
        up, down = _within(path, file, len(a))
        a[: len(down)] = down
        b[:, : len(down)] = up * (file.scale / scales[module])
        if not b.isfinite().all():
            raise LoraError(f"{path}: with its scale of {file.scale:g} the LoRA of {module} is infinite: it is damaged")
        magnitude = parameters.get(f"{module}.{MAGNITUDE}.weight")
        if magnitude is not None:
            w = layers[module].weight.float()
            magnitude.copy_(row_norms(w + scales[module] * b @ a))
            if file.dora is not None:
                magnitude *= file.dora.to(w.device) / row_norms(w)
        elif file.dora is not None:
            raise LoraError(f"{path} is a DoRA: set lora.variant to 'dora'")


def _within(path: Path, file: Factors, rank: int) -> tuple[Tensor, Tensor]:
    """up and down of at most `rank`: what a larger file has of zeros is left out."""
    up, down = file.up, file.down
    if len(down) > rank:
        used = up.any(0)
        up, down = up[:, used], down[used]
    if len(down) > rank:
        raise LoraError(f"{path} has rank {len(down)}: set lora.rank to it or above, it was {rank}")
    return up, down
