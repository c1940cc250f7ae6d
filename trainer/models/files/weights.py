"""Weights of files, read tensor by tensor: a model of 24 GB is loaded without a second copy of it in memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...errors import brief
from .recognise import quantiser
from .source import ModelError
from .stored import Stored

Put = Callable[[nn.Module, str, Tensor, Tensor | None], None]  # stores a named weight, and its scale, in a model
Ready = Callable[[nn.Module], Put]  # readies a model on the meta device, whose layers it may exchange, for its weights

SCALES = ("scale_weight", "weight_scale")  # ComfyUI's names: weight = 8-bit weight * scale, of all or of each row
IGNORED = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")  # none of them changes a weight
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
READ = "bf16, fp16, fp8, int8, nvfp4, mxfp8, bitsandbytes' 4 bits or most kinds of GGUF"


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
    def unread(self) -> str:
        """How the values are stored, if that is not read; else empty."""
        kind = brief(self.stored.dtype)[1:-1]
        if self.scale is None:
            return "" if self.stored.dtype in FLOATING else kind
        if not is_plain(self.scale.shape, self.stored.shape):
            return f"{kind} with scales of the shape {list(self.scale.shape)}"
        return "" if self.stored.dtype in (*FLOATING, "I8") else kind

    def read_scale(self) -> Tensor | None:
        """Of all values [], or of each row [rows, 1, ...], float32.

        Raises:
            ModelError: it makes no numbers of the values.
        """
        if self.scale is None:
            return None
        scale = self.scale.read().float().flatten()
        if not scale.isfinite().all() or not scale.any():
            reason = f"the scale of {brief(self.stored.name)} is 0, infinite or not a number"
            raise ModelError(f"{self.stored.path}: {reason}: download it again")
        if len(scale) == 1:
            return scale.reshape(())
        some = torch.cat([scale[r] for r in self.rows]) if self.rows else scale
        return some.reshape(-1, *(1 for _ in self.shape[1:]))


def is_plain(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether scales of this shape are one for all of a weight, or one for each row."""
    count = math.prod(scale)
    return count == 1 or (len(weight) > 1 and count == scale[0] == weight[0])


def pieces_of(tensors: Mapping[str, Stored]) -> dict[str, Piece]:
    """Each weight whole, with its scale if the file has one."""
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
    coded = next((pieces[name] for name in wanted if name in pieces and pieces[name].unread), None)
    if (missing or coded) and (by := quantiser(pieces)):
        return f"is quantised by {by}, which is not read: take one in {READ}"
    if missing:
        return f"lacks {len(missing)} weights, the first is {min(missing)}"
    if coded:
        return f"keeps {brief(coded.stored.name)} as {coded.unread}, which is not read: take one in {READ}"
    odd = [name for name, piece in pieces.items() if wanted.get(name) != piece.shape]
    if odd:
        return f"has {len(odd)} tensors that do not fit, the first is {brief(odd[0])[1:-1]}"
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
