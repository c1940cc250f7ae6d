"""Layers that ComfyUI quantised, in safetensors files: which they are, and whether their parts fit each other.

Beside the weight of each stand its scales and, as `comfy_quant`, a JSON text that names its format. Other files have
one text for all layers in the header, and older ones none: there it is fp8, or whole numbers of 8 bits.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import brief
from .comfy_formats import FLOATS, FORMATS, FP8, INT8, ROTATED, Format, Need, Options, Rows, unrotated
from .safe_tensor import SafeTensor
from .source import TRANSFORMER_PREFIX, ModelError
from .stored import Stored
from .weights import SCALES, is_plain

TEXT, TEXTS = "comfy_quant", "_quantization_metadata"
LONGEST = 2**16  # bytes of a layer's text
SMOOTHED = "pre_quant_scale"  # what the layer's input is multiplied with, so that W is by columns
PARTS = {  # what stands beside a weight: its names
    "weight_scale": SCALES,
    "weight_scale_2": ("weight_scale_2",),
    "weight_s_rel": ("weight_s_rel",),
    "weight_s_channel": ("weight_s_channel",),
    "weight_codebook": ("weight_codebook",),
    "weight_correction": ("weight_correction",),
    SMOOTHED: (SMOOTHED,),
}
UNTOLD = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I8": "int8_tensorwise"}  # if no text says it
REMEDY = "download it again, or take the model in another format"


@dataclass(frozen=True)
class QuantisedTensor:
    """The weight of such a layer."""

    weight: SafeTensor
    parts: Mapping[str, SafeTensor]
    shape: tuple[int, int]  # of the numbers that it stands for
    kind: str  # a key of FORMATS
    options: Options
    dtype: str = "F32"

    @property
    def name(self) -> str:
        return self.weight.name

    @property
    def path(self) -> Path:
        return self.weight.path

    def read(self, rows: Sequence[slice] = ()) -> Tensor:
        parts = {name: _numbers(part) for name, part in self.parts.items()}
        some = Rows(self.weight.read(rows), parts, self.shape, rows, self.options)
        try:
            numbers = FORMATS[self.kind].widened(some)
            if self.options.rotated:
                numbers = unrotated(numbers, self.options.rotated)
            if SMOOTHED in parts:
                numbers *= parts[SMOOTHED].float().view(-1)
            if not torch.stack(numbers.aminmax()).isfinite().all():  # without a second copy, unlike its own `isfinite`
                raise ValueError("a number or a scale is infinite or not a number")
        except ValueError as error:
            raise _unfit(self.weight, self.kind, error) from None
        return numbers


def quantised(stored: Mapping[str, Stored], texts: Mapping[str, Any]) -> dict[str, Stored]:
    """The same tensors, with the layers' weights as the numbers that they stand for.

    Weights of 8 bits that one number scales, or one for each row, are left as they are, and their scales beside them.

    Args:
        texts: what headers say of layers, see `texts_of`.

    Raises:
        ModelError: the parts of a layer do not fit each other.
    """
    tensors = {name: tensor for name, tensor in stored.items() if isinstance(tensor, SafeTensor)}
    found = dict(stored)
    for name, weight in tensors.items():
        layer, _, leaf = name.rpartition(".")
        told = _told(layer, weight, tensors, texts) if leaf == "weight" else None
        if told is None:
            continue
        parts = _parts(layer, tensors)
        found[name] = _stored(weight, told, parts)
        if isinstance(found[name], QuantisedTensor):
            for part in parts.values():
                del found[part.name]
    return found


def texts_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file's header says of its layers, by their names; ComfyUI does without the transformer's prefix in them.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        layers = json.loads(metadata[TEXTS])["layers"] if TEXTS in metadata else {}
        return layers | {TRANSFORMER_PREFIX + layer: told for layer, told in layers.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: its {TEXTS} cannot be read ({_reason(error)}): {REMEDY}") from None


def _told(layer: str, weight: SafeTensor, tensors: Mapping[str, SafeTensor], texts: Mapping[str, Any]) -> Any:
    """The text of a layer, read; None if it is not quantised."""
    if layer in texts:
        return texts[layer]
    if f"{layer}.{TEXT}" in tensors:
        return _parsed(tensors[f"{layer}.{TEXT}"])
    scaled = any(f"{layer}.{name}" in tensors for name in SCALES)
    return {"format": UNTOLD[weight.dtype]} if scaled and weight.dtype in UNTOLD else None


def _parsed(text: SafeTensor) -> Any:
    try:
        if text.dtype != "U8" or math.prod(text.shape) > LONGEST:
            raise ValueError(f"{math.prod(text.shape)} numbers {brief(text.dtype)[1:-1]}")
        return json.loads(bytes(text.read().flatten().tolist()))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{text.path}: {brief(text.name)} cannot be read ({_reason(error)}): {REMEDY}") from None


def _parts(layer: str, tensors: Mapping[str, SafeTensor]) -> dict[str, SafeTensor]:
    named = {part: [tensors.get(f"{layer}.{name}") for name in names] for part, names in PARTS.items()}
    return {part: tensor for part, those in named.items() for tensor in those if tensor is not None}


def _stored(weight: SafeTensor, told: Any, parts: Mapping[str, SafeTensor]) -> Stored:
    """What is to be read as a layer's weight: itself, what it stands for, or something that says why it is not read."""
    kind = told.get("format") if isinstance(told, dict) else None
    if not isinstance(kind, str):
        raise _unfit(weight, TEXT, ValueError(f"{brief(told)} names no format"))
    if kind not in FORMATS:
        return replace(weight, entry=replace(weight.entry, dtype=f"{kind} ({TEXT}: {brief(told)})"))
    form = FORMATS[kind]
    try:
        options = _options(kind, told)
        if weight.dtype not in form.kinds:
            raise ValueError(f"its weight is {brief(weight.dtype)[1:-1]}, not {' or '.join(form.kinds)}")
        if _as_it_is(weight, form, options, parts):
            return weight
        shape = _checked(weight, form, options, parts)
    except ValueError as error:
        raise _unfit(weight, kind, error) from None
    return QuantisedTensor(weight, parts, shape, kind, options)


def _as_it_is(weight: SafeTensor, form: Format, options: Options, parts: Mapping[str, SafeTensor]) -> bool:
    """Whether 8 bits and their scales can be kept, see `Piece`."""
    scale = parts.get("weight_scale")
    if form not in (FP8, INT8) or options.rotated or SMOOTHED in parts or scale is None:
        return False
    return scale.dtype in FLOATS and is_plain(scale.shape, weight.shape)


def _options(kind: str, told: Mapping[str, Any]) -> Options:
    inner = told.get("params")  # where older converters wrote them
    told = {**inner, **told} if isinstance(inner, dict) else told
    rotated = told.get("convrot_groupsize", 256) if kind in ROTATED or told.get("convrot") else 0
    options = Options(rotated, told.get("group_size", Options.group))
    if not all(type(n) is int for n in (options.rotated, options.group)) or options.group < 1:
        raise ValueError(f"its options are {brief(told)}")
    if rotated not in (0, *(4**n for n in range(1, 9))):
        raise ValueError(f"{rotated} columns would be rotated together: a power of 4 is needed")
    return options


def _checked(weight: SafeTensor, form: Format, options: Options, parts: Mapping[str, SafeTensor]) -> tuple[int, int]:
    """The shape of the numbers. Raises ValueError: something is missing or of another size."""
    if len(weight.shape) != 2 or 0 in weight.shape:
        raise ValueError(f"its weight is {list(weight.shape)}, which is no matrix")
    shape = weight.shape[0], weight.shape[1] * form.packed
    if options.rotated and shape[1] % options.rotated:
        raise ValueError(f"{options.rotated} columns are rotated together, and it has {shape[1]}")
    needs = form.needs(shape, {name: part.shape for name, part in parts.items()}, options)
    if SMOOTHED in parts:
        needs[SMOOTHED] = Need(shape[1], FLOATS)
    for name, need in needs.items():
        if name not in parts:
            raise ValueError(f"its {name} is missing")
        part = parts[name]
        if math.prod(part.shape) != need.numbers or part.dtype not in need.kinds:
            found = f"{list(part.shape)} numbers {brief(part.dtype)[1:-1]}"
            raise ValueError(f"its {name} has {found}, not {need.numbers} {' or '.join(need.kinds)}")
    return shape


def _numbers(part: SafeTensor) -> Tensor:
    """Those of a part; exponents as bytes, for which not every torch has a kind."""
    bare = replace(part, entry=replace(part.entry, dtype="U8")) if part.dtype == "F8_E8M0" else part
    return bare.read()


def _unfit(weight: SafeTensor, kind: str, error: Exception) -> ModelError:
    return ModelError(f"{weight.path}: {brief(weight.name)} cannot be read as {kind} ({_reason(error)}): {REMEDY}")


def _reason(error: Exception) -> str:
    return brief(" ".join(str(error).split()))[1:-1]
