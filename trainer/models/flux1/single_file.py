"""FLUX transformers in one file, under Black Forest Labs' own names or diffusers': what ComfyUI users have."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel

from ...errors import brief
from ..files.opened import open_file
from ..files.recognise import FLUX1, quantiser, recognise
from ..files.source import TRANSFORMER_PREFIX, ModelError
from ..files.stored import Stored
from ..files.weights import READ, Piece, pieces_of, under

MARK = "double_blocks.0.img_attn.qkv.weight"  # every FLUX has it
DIFFUSERS_MARK = "single_transformer_blocks.0.proj_mlp.weight"
QKV = ("q", "k", "v")
# parameters whose shapes tell the configuration, and how many dimensions each has
TELLING = {
    "x_embedder.weight": 2,
    "context_embedder.weight": 2,
    "time_text_embed.text_embedder.linear_1.weight": 2,
    "transformer_blocks.0.attn.norm_q.weight": 1,
    "proj_out.weight": 2,
}
MOST_BLOCKS = 200  # of a kind; FLUX.1 has 19 and 38
WIDEST = 2**17  # FLUX.1 is 3072 wide, and its blocks 12288 within

EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


def open_single_file(path: Path) -> tuple[FluxTransformer2DModel, dict[str, Piece]]:
    """The transformer of a file such as flux1-dev.safetensors, on the meta device, and where its parameters are.

    Its configuration comes from the tensors' shapes. The file may hold text encoders and a VAE beside it.

    Raises:
        ModelError: not a safetensors or GGUF file, or not a FLUX transformer.
    """
    tensors = open_file(path)
    pieces = transformer_pieces(tensors)
    untold = [name for name in TELLING if name not in pieces]
    if untold:
        raise ModelError(f"{path} {_other(tensors, untold[0])}")
    strange = _strange_sizes(pieces)
    if strange:
        raise ModelError(f"{path} is no plain FLUX transformer: it {strange}")
    with torch.device("meta"):
        return FluxTransformer2DModel(**configuration(pieces)), pieces


def _other(tensors: Mapping[str, Stored], missing: str) -> str:
    """What is wrong with a file that lacks a parameter which every FLUX transformer has."""
    kind = recognise(tensors)
    if kind == FLUX1:
        return f"is no whole FLUX transformer ({missing} is missing): download it again"
    if quantiser(tensors):
        return f"is {kind}: take FLUX.1-dev or -schnell in {READ}"
    return f"is not a FLUX transformer but {kind} ({missing} is missing): choose FLUX.1-dev or -schnell"


def transformer_pieces(tensors: Mapping[str, Stored]) -> dict[str, Piece]:
    """Where diffusers' parameters are in a file with these tensors; empty if it holds no FLUX transformer."""
    tensors = under(tensors, TRANSFORMER_PREFIX) or tensors
    if MARK in tensors and "img_in.weight" in tensors and tensors["img_in.weight"].shape:
        return dict(diffusers_names(pieces_of(tensors)))
    return pieces_of(tensors) if DIFFUSERS_MARK in tensors else {}


def _strange_sizes(pieces: Mapping[str, Piece]) -> str:
    """What no FLUX has, before a model of such sizes is built; empty if there is nothing."""
    for name, dimensions in TELLING.items():
        shape = pieces[name].shape
        if len(shape) != dimensions or not all(0 < n <= WIDEST for n in shape):
            return f"has {name} of the shape {brief(shape)}"
    hidden, head = pieces["x_embedder.weight"].shape[0], pieces["transformer_blocks.0.attn.norm_q.weight"].shape[0]
    if hidden % head or head % 2:
        return f"has heads of {head} in a width of {hidden}"
    for blocks in ("transformer_blocks", "single_transformer_blocks"):
        if _count(pieces, blocks) > MOST_BLOCKS:
            return f"has {_count(pieces, blocks)} {blocks}, of which FLUX.1 has 19 or 38"
    return ""


def configuration(pieces: Mapping[str, Piece]) -> dict[str, object]:
    """Arguments of FluxTransformer2DModel for parameters of these shapes."""
    hidden, channels = pieces["x_embedder.weight"].shape
    drawn = pieces["proj_out.weight"].shape[0]
    (head,) = pieces["transformer_blocks.0.attn.norm_q.weight"].shape
    side = 7 * head // 32 * 2  # FLUX splits a head's 128 dimensions 16, 56, 56 among index, row and column
    return {
        "in_channels": channels,
        "out_channels": None if drawn == channels else drawn,  # FLUX.1-Fill draws fewer than it takes
        "num_layers": _count(pieces, "transformer_blocks"),
        "num_single_layers": _count(pieces, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": pieces["context_embedder.weight"].shape[1],
        "pooled_projection_dim": pieces["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in pieces,
        "axes_dims_rope": [head - 2 * side, side, side],
    }


def diffusers_names(pieces: Mapping[str, Piece]) -> Iterator[tuple[str, Piece]]:
    """The same weights under diffusers' names: fused projections are split, scale and shift change places.

    A part of a fused projection keeps the whole one's scale, or its rows of the scales.
    """
    hidden = pieces["img_in.weight"].shape[0]
    for name, piece in pieces.items():
        module, _, kind = name.rpartition(".")
        kind = "weight" if kind == "scale" else kind
        block = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", module)
        if not block:
            if module == "final_layer.adaLN_modulation.1" and piece.shape:
                piece = piece.part(slice(hidden, 2 * hidden), slice(0, hidden))  # shift, scale -> scale, shift
            yield f"{EMBEDDERS.get(module, module)}.{kind}", piece
        elif block[1] == "double":
            prefix = f"transformer_blocks.{block[2]}"
            if block[3].endswith("_attn.qkv"):
                pattern = "to_{}" if block[3].startswith("img") else "add_{}_proj"
                for letter, part in zip(QKV, _split(piece, hidden, 3), strict=True):
                    yield f"{prefix}.attn.{pattern.format(letter)}.{kind}", part
            else:
                yield f"{prefix}.{DOUBLE.get(block[3], block[3])}.{kind}", piece
        else:
            prefix = f"single_transformer_blocks.{block[2]}"
            if block[3] == "linear1":
                *qkv, mlp = _split(piece, hidden, 4)
                for letter, part in zip(QKV, qkv, strict=True):
                    yield f"{prefix}.attn.to_{letter}.{kind}", part
                yield f"{prefix}.proj_mlp.{kind}", mlp
            else:
                yield f"{prefix}.{SINGLE.get(block[3], block[3])}.{kind}", piece


def _split(piece: Piece, rows: int, parts: int) -> list[Piece]:
    """`parts` pieces of `rows` rows each; the last has what is left. What has no rows fits nowhere as it is."""
    if not piece.shape:
        return [piece] * parts
    ends = [*(rows * n for n in range(parts)), piece.shape[0]]
    return [piece.part(slice(start, end)) for start, end in zip(ends, ends[1:], strict=False)]


def _count(pieces: Mapping[str, Piece], blocks: str) -> int:
    """How many there are, whatever their numbers: if those are not 0, 1, 2, ..., one is missed by its name later."""
    return len({name.split(".")[1] for name in pieces if name.startswith(f"{blocks}.")})
