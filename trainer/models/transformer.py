"""Loading of the FLUX transformer, whatever kind of file it is in."""

import json
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel

from .geometry import CHANNELS
from .single_file import open_single_file
from .source import ModelError, ModelSource
from .weights import Piece, Prepare, Put, complaint, fill, pieces_of, safetensors_files, widened

PART = "transformer"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
WHOLE = "diffusion_pytorch_model.safetensors"


def load_transformer(
    source: ModelSource, *, dtype: torch.dtype, prepare: Prepare | None = None, put: Put | None = None
) -> FluxTransformer2DModel:
    """The frozen transformer of a diffusers folder or of a single file, read tensor by tensor.

    Args:
        source: where the model is.
        dtype: what the plain `put` widens all weights to.
        prepare: called with the model on the meta device, to exchange layers for those that keep their weights
            otherwise; the parameters' names stay.
        put: called as `put(model, name, tensor, scale)` for each parameter, in the file's precision; a scale, float32
            of one element, is to be multiplied with the tensor. Without it all are in `dtype`, on the CPU.

    Raises:
        ModelError: a missing or damaged file, or a model of another kind.
    """
    transformer, pieces = open_single_file(source.file) if source.file else _open_folder(source)
    channels = transformer.config.in_channels
    plain = channels == 4 * CHANNELS  # FLUX.1 Fill, Canny and Depth take more
    reason = complaint(transformer, pieces) if plain else f"takes {channels} channels, FLUX takes {4 * CHANNELS}"
    if reason and source.file:
        raise ModelError(f"{source.file} is no plain FLUX transformer: it {reason}")
    if reason:
        raise source.error(f"its {PART} {reason}")
    if prepare:
        prepare(transformer)
    fill(transformer, pieces, put or widened(dtype))
    return transformer.requires_grad_(False).eval()


def _open_folder(source: ModelSource) -> tuple[FluxTransformer2DModel, dict[str, Piece]]:
    folder = source.folder(PART)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        with torch.device("meta"):
            transformer = FluxTransformer2DModel.from_config(config)
        return transformer, pieces_of(safetensors_files(_shards(folder)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
        raise source.error(f"its {PART} does not load ({' '.join(str(error).split())[:200]})") from error


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        return [folder / WHOLE]
    return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
