"""Loading of the FLUX transformer, whatever kind of file it is in."""

import json
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel

from ...errors import brief
from ..files.headers import read_config
from ..files.opened import safetensors_files
from ..files.source import ModelError, ModelSource
from ..files.weights import Piece, Ready, complaint, fill, pieces_of, widened
from .geometry import CHANNELS, FILL_CHANNELS
from .single_file import open_single_file

PART = "transformer"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
WHOLE = "diffusion_pytorch_model.safetensors"
LONGEST = 2**24  # bytes of an index
BUILDING = (RuntimeError, ZeroDivisionError, AssertionError, IndexError, RecursionError)  # of a model of such sizes


def load_transformer(source: ModelSource, *, dtype: torch.dtype, ready: Ready | None = None) -> FluxTransformer2DModel:
    """The frozen transformer of a diffusers folder or of a single file, read tensor by tensor.

    Args:
        source: where the model is.
        dtype: of all weights, on the CPU, if nothing else keeps them.
        ready: called with the model on the meta device, to exchange layers for those that keep their weights otherwise
            (the parameters' names stay); what it returns is called as `put(model, name, tensor, scale)` for each
            parameter, in the file's precision; a scale, float32 [] or [rows, 1], is to be multiplied with the tensor.

    Raises:
        ModelError: a missing or damaged file, or a model of another kind.
    """
    transformer, pieces = open_single_file(source.file) if source.file else _open_folder(source)
    channels = transformer.config.in_channels
    known = channels in (4 * CHANNELS, FILL_CHANNELS)  # FLUX.1 Canny and Depth take others
    takes = f"takes {channels} channels, FLUX takes {4 * CHANNELS}, or {FILL_CHANNELS} for Fill"
    reason = complaint(transformer, pieces) if known else takes
    if reason and source.file:
        raise ModelError(f"{source.file} is no plain FLUX transformer: it {reason}")
    if reason:
        raise source.error(f"its {PART} {reason}")
    fill(transformer, pieces, ready(transformer) if ready else widened(dtype))
    return transformer.requires_grad_(False).eval()


def _open_folder(source: ModelSource) -> tuple[FluxTransformer2DModel, dict[str, Piece]]:
    folder = source.folder(PART)
    try:
        config = read_config(folder / "config.json")
        with torch.device("meta"):
            transformer = FluxTransformer2DModel.from_config(config)
        return transformer, pieces_of(safetensors_files(_shards(folder)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelError, *BUILDING) as error:
        raise source.error(f"its {PART} does not load ({' '.join(str(error).split())[:200]})") from error


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        return [folder / WHOLE]
    names = sorted(set(json.loads(index.read_bytes()[:LONGEST].decode("utf-8"))["weight_map"].values()))
    if strange := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{INDEX} names {brief(strange[0])}, which is no file beside it")
    return [folder / name for name in names]
