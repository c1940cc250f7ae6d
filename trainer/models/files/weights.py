"""Weights of files, read tensor by tensor: a model of 24 GB is loaded without a second copy of it in memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...errors import brief
from .stored import Stored

Put = Callable[[nn.Module, str, Tensor, Tensor | None], None]  # stores a named weight, and its scale, in a model
Ready = Callable[[nn.Module], Put]  # readies a model on the meta device, whose layers it may exchange, for its weights

SCALES = ("scale_weight", "weight_scale")  # ComfyUI's names: weight = 8-bit weight * scale
IGNORED = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")  # none of them changes a weight
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Piece:
    """Where the values of one parameter are: in a stored tensor, or in some of its rows."""

    stored: Stored
    shape: tuple[int, ...]
    rows: tuple[slice, ...] = ()
    scale: Stored | None = None

    def part(self, *rows: slice) -> "Piece":
        """These ranges of rows alone."""
        return replace(self, rows=rows, shape=(sum(r.stop - r.start for r in rows), *self.shape[1:]))

    def read(self) -> Tensor:
        return self.stored.read(self.rows).reshape(self.shape)

    @property
    def readable(self) -> bool:
        """Whether the values are numbers of their own, or such times one number."""
        return self.stored.dtype in FLOATING and (self.scale is None or math.prod(self.scale.shape) == 1)

    def read_scale(self) -> Tensor | None:
        return None if self.scale is None else self.scale.read().float().reshape(())


def pieces_of(tensors: Mapping[str, Stored]) -> dict[str, Piece]:
    """Each weight whole, with its scale if the file is scaled fp8."""
    pieces = {}
    for name, stored in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind not in (*SCALES, *IGNORED):
            scales = (tensors.get(f"{module}.{scale}") for scale in SCALES) if kind == "weight" else ()
            scale = next(filter(None, scales), None)
            pieces[name] = Piece(stored, stored.shape, scale=scale)
    return pieces


def under(tensors: Mapping[str, Stored], prefix: str) -> dict[str, Stored]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): stored for name, stored in tensors.items() if name.startswith(prefix)}


def complaint(module: nn.Module, pieces: Mapping[str, Piece]) -> str:
    """Why `pieces` cannot become the module's parameters; empty if they can."""
    wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    missing = [name for name in wanted if name not in pieces]
    if missing:
        return f"lacks {len(missing)} weights, the first is {min(missing)}"
    odd = [name for name, piece in pieces.items() if wanted.get(name) != piece.shape]
    if odd:
        return f"has {len(odd)} tensors that do not fit, the first is {brief(odd[0])[1:-1]}"
    coded = next((piece for piece in pieces.values() if not piece.readable), None)
    if coded:
        kind = brief(coded.stored.dtype)[1:-1]
        return f"is quantised in a way that is not read here ({kind}): bf16, fp16, fp8 and most of GGUF are"
    return ""


def fill(module: nn.Module, pieces: Mapping[str, Piece], put: Put) -> None:
    """Read the parameters one after another and hand each to `put`."""
    for name, piece in pieces.items():
        put(module, name, piece.read(), piece.read_scale())


def widened(dtype: torch.dtype, device: str = "cpu") -> Put:
    """The plain way to store a weight: as a frozen parameter of `dtype` on `device`, multiplied by its scale."""

    def put(module: nn.Module, name: str, tensor: Tensor, scale: Tensor | None = None) -> None:
        owner, _, leaf = name.rpartition(".")
        tensor = tensor.to(device)
        value = tensor if scale is None else tensor.float() * scale.to(device)
        parameter = nn.Parameter(value.to(dtype), requires_grad=False)
        setattr(module.get_submodule(owner), leaf, parameter)

    return put
