"""Names of the autoencoder's parameters in Black Forest Labs' ae.safetensors, and what diffusers calls them."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ..files.weights import Piece

NAMES = (
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
    (r"\.(down|up)\.(\d+)\.\1sample\.", r".\1_blocks.\2.\1samplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)


def diffusers_vae_names(pieces: Mapping[str, Piece], levels: int) -> dict[str, Piece]:
    """The same weights under diffusers' names; those that have them already stay.

    The decoder's `levels` blocks count from the picture in the original, from the latents in diffusers.
    """
    renamed = {}
    for name, piece in pieces.items():
        new = name
        for original, ours in NAMES:
            new = re.sub(original, ours, new)
        if new != name:
            new = re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", new)
        if ".attentions." in new and len(piece.shape) == 4:  # 1 x 1 convolutions there, linear layers here
            piece = replace(piece, shape=piece.shape[:2])
        renamed[new] = piece
    return renamed
