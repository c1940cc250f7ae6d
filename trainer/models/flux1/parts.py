"""Autoencoder, text encoders and tokenizers: of a diffusers folder, or of files of their own as ComfyUI has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from ..files.opened import safetensors_files
from ..files.recognise import recognise
from ..files.source import ENCODERS_PREFIX, VAE_PREFIX, ModelError, ModelSource
from ..files.stored import Stored
from ..files.weights import Piece, Put, Ready, complaint, fill, pieces_of, under, widened
from ..storage.memory import Storage, plan_for, readied
from ..storage.placement import Placement
from .vae_names import diffusers_vae_names

# FLUX.1 in diffusers' layout, without weights: the settings of single files, which hold none
PUBLISHED = ModelSource("FLUX.1", str(Path(__file__).parent), hub=False)

VAE = "autoencoder (ae.safetensors)"
CLIP = "CLIP-L (clip_l.safetensors)"
T5 = "T5-XXL encoder (t5xxl_fp16.safetensors)"
CLIP_MARK = "text_model.encoder.layers.0.self_attn.q_proj.weight"
T5_MARK = "encoder.block.0.layer.0.SelfAttention.q.weight"

Files = Mapping[Path, Mapping[str, Stored]]


def load_vae(source: ModelSource, *, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder, frozen, on the CPU: of the file `source.vae`, or the model's own.

    Raises:
        ModelError: there is none, or it is of another model.
    """
    if source.vae or source.file:
        vae = _vae_of_file(source, dtype)
    else:
        vae = source.load_model(AutoencoderKL, "vae", torch_dtype=dtype)
    return vae.requires_grad_(False).eval()


def load_encoders(source: ModelSource, placement: Placement) -> dict[str, Any]:
    """CLIP and T5 with their tokenizers, as FluxPipeline's arguments: of `source.text_encoders`, or the model's own.

    Raises:
        ModelError: one of them is missing, or of another model.
    """
    device, dtype = placement.device, placement.dtype
    if source.text_encoders or source.file:
        source.require_encoders()
        files = {Path(name): safetensors_files([Path(name)]) for name in source.text_encoders or [source.location]}
        ready = readied(placement)
        clip, t5 = _clip_of_files(files, ready), _t5_of_files(files, dtype, device, ready)
        source = PUBLISHED
    else:
        clip = source.load_model(CLIPTextModel, "text_encoder", torch_dtype=dtype)
        t5 = source.load_model(T5EncoderModel, "text_encoder_2", torch_dtype=dtype)
        for model in (clip, t5):
            Storage(plan_for(model, placement), device=device, dtype=dtype).store(model)
    return {
        "text_encoder": clip.eval().to(device),
        "tokenizer": source.load(CLIPTokenizer, "tokenizer"),
        "text_encoder_2": t5.eval().to(device),
        "tokenizer_2": source.load(T5TokenizerFast, "tokenizer_2"),
    }


def _vae_of_file(source: ModelSource, dtype: torch.dtype) -> AutoencoderKL:
    source.require_vae()
    path = Path(source.vae or source.location)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(PUBLISHED.folder("vae")))
    tensors = safetensors_files([path])
    pieces = pieces_of(under(tensors, VAE_PREFIX) or tensors)
    _fit(vae, diffusers_vae_names(pieces, len(vae.config.up_block_types)), lambda _: widened(dtype), path, VAE)
    return vae


def _clip_of_files(files: Files, ready: Ready) -> CLIPTextModel:
    path, tensors = _holding(files, f"{ENCODERS_PREFIX}clip_l.transformer.", CLIP_MARK, CLIP)
    with torch.device("meta"):
        clip = CLIPTextModel._from_config(CLIPTextConfig.from_pretrained(PUBLISHED.folder("text_encoder")))
    pieces = pieces_of(tensors)
    if not hasattr(clip, "text_model"):  # newer releases of transformers have a level less
        pieces = {name.removeprefix("text_model."): piece for name, piece in pieces.items()}
    _fit(clip, pieces, ready, path, CLIP)
    for module in clip.modules():
        if hasattr(module, "position_ids"):  # counts up, and is in no file
            module.position_ids = torch.arange(module.position_ids.shape[-1]).expand(1, -1)
    return clip


def _t5_of_files(files: Files, dtype: torch.dtype, device: str, ready: Ready) -> T5EncoderModel:
    path, tensors = _holding(files, f"{ENCODERS_PREFIX}t5xxl.transformer.", T5_MARK, T5)
    with torch.device("meta"):
        t5 = T5EncoderModel._from_config(T5Config.from_pretrained(PUBLISHED.folder("text_encoder_2")))

    def ready_wide(module: nn.Module) -> Put:
        plain, wide = ready(module), widened(torch.float32, device)

        def put(module: nn.Module, name: str, tensor: Tensor, scale: Tensor | None) -> None:
            # float16 is too narrow for these layers, as transformers knows too
            narrow = dtype == torch.float16 and ".wo." in name
            narrow = narrow and type(module.get_submodule(name.rpartition(".")[0])) is nn.Linear
            (wide if narrow else plain)(module, name, tensor, scale)

        return put

    _fit(t5, pieces_of(tensors), ready_wide, path, T5)
    t5.tie_weights()
    return t5


def _holding(files: Files, prefix: str, mark: str, what: str) -> tuple[Path, Mapping[str, Stored]]:
    """The file with the tensor `mark`, be it a file of its own or a whole checkpoint with it under `prefix`."""
    for path, tensors in files.items():
        tensors = under(tensors, prefix) or tensors
        if mark in tensors:
            return path, tensors
    kinds = ", ".join(f"{path} is {recognise(tensors)}" for path, tensors in files.items())
    raise ModelError(f"model.text_encoders lacks FLUX.1's {what}: {kinds}")


def _fit(module: nn.Module, pieces: Mapping[str, Piece], ready: Ready, path: Path, what: str) -> None:
    """Fill `module`; tensors that it has no place for, such as CLIP's vision half, are not read.

    Raises:
        ModelError: some are missing, or of other sizes.
    """
    fitting = {name: pieces[name] for name, _ in module.named_parameters() if name in pieces}
    reason = complaint(module, fitting)
    if reason:
        kind = recognise(piece.stored.name for piece in pieces.values())
        raise ModelError(f"{path} ({kind}) does not fit FLUX.1's {what}: it {reason}")
    fill(module, fitting, ready(module))
