"""CLIP models as people have them: folders of transformers, single safetensors files, OpenCLIP checkpoints."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPTextConfig

from ..errors import brief
from ..models.files.headers import MOST_LAYERS, read_config
from ..models.files.safe_file import unmap
from .clip_tokens import END, START, VOCABULARY, Tokens, clip_tokens
from .errors import RewardError
from .tensor_files import MISFITS, read_tensors

OPEN_CLIP = "visual.conv1.weight"  # every OpenCLIP vision transformer has it
NEEDED = ("vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight")
OWN_TOKENS = ("config.json", "tokenizer_config.json")
BUFFERS = ("attn_mask", "position_ids")  # constants that older files store
VIT_L = 1024  # width of its vision tower; OpenAI published none that is wider
VISION_HEADS = {1280: 16, 1408: 16, 1664: 16}  # ViT-H, -g, -bigG by their width; a head of the others is 64 wide

PARTS = {  # OpenCLIP -> transformers
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
}
BLOCKS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def read_clip(path: Path, activation: str) -> tuple[CLIPModel, Tokens]:
    """A CLIP on the CPU, in the file's dtype or float32, and its tokeniser.

    Args:
        path: a folder with a config.json, or a file, or a folder with nothing but a model.safetensors.
        activation: "gelu" or "quick_gelu", which no tensor tells; empty: quick_gelu, OpenAI's, for a file in
            transformers' names whose vision tower is no wider than ViT-L's, else gelu. A folder's config decides alone.

    Raises:
        RewardError: missing or surplus tensors, a damaged or foreign file, an unknown vocabulary.
    """
    if path.is_dir() and (path / "config.json").is_file():
        model = _from_folder(path)
    else:
        model = _from_file(path / "model.safetensors" if path.is_dir() else path, activation)
    return model.eval().requires_grad_(False), _tokens(path, model.config.text_config)


def _from_folder(folder: Path) -> CLIPModel:
    try:
        read_config(folder / "config.json")
        model, info = CLIPModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, SafetensorError, *MISFITS) as error:
        raise RewardError(f"CLIP: {folder} does not load ({' '.join(str(error).split())[:200]})") from error
    _refuse_misfits(folder, info["missing_keys"], info["unexpected_keys"])
    unmap(model)
    return model


def _from_file(path: Path, activation: str) -> CLIPModel:
    if not path.is_file():
        raise RewardError(f"CLIP: {path.parent} has neither a config.json nor a model.safetensors: download it again")
    tensors = read_tensors(path)
    ours = OPEN_CLIP not in tensors
    try:
        renamed = dict(tensors.items() if ours else transformers_names(tensors))
        for name in NEEDED:
            if name not in renamed:
                raise RewardError(
                    f"{path} is no CLIP of a picture and a text tower: it has neither {name} nor {OPEN_CLIP}"
                )
        openai = ours and len(renamed[NEEDED[0]]) <= VIT_L
        config = CLIPConfig(**configuration(renamed, activation or ("quick_gelu" if openai else "gelu")))
        with torch.device("meta"):
            model = CLIPModel(config)
        wrong = model.load_state_dict(renamed, strict=False, assign=True)
    except MISFITS as error:
        raise RewardError(f"{path} is no CLIP ({' '.join(str(error).split())[:200]}): download it again") from error
    _refuse_misfits(path, wrong.missing_keys, wrong.unexpected_keys)
    for tower in (model.text_model, model.vision_model):  # not in the file
        length = tower.embeddings.position_embedding.num_embeddings
        tower.embeddings.position_ids = torch.arange(length)[None]
    return model


def _refuse_misfits(path: Path, missing: list[str], unexpected: list[str]) -> None:
    unexpected = [name for name in unexpected if not name.endswith(BUFFERS)]
    for names, what in ((missing, "lacks"), (unexpected, "has, beside those of a CLIPModel,")):
        if names:
            such = brief(min(names))[1:-1]
            raise RewardError(f"{path} {what} {len(names)} tensors, such as {such}: it is another model, or cut")


def _tokens(path: Path, config: CLIPTextConfig) -> Tokens:
    """The folder's own tokeniser if it has one, else CLIP's."""
    length = config.max_position_embeddings
    if all((path / name).is_file() for name in OWN_TOKENS):
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except (OSError, *MISFITS) as error:
            reason = " ".join(str(error).split())[:200]
            raise RewardError(f"CLIP: the tokeniser in {path} does not load ({reason})") from error
        return lambda text: tokenizer(text, truncation=True, max_length=length).input_ids
    if config.vocab_size != VOCABULARY:
        raise RewardError(
            f"CLIP: {path} has a vocabulary of {config.vocab_size}, CLIP's has {VOCABULARY}: it needs a folder with "
            f"{' and '.join(OWN_TOKENS)} and the tokeniser's files"
        )
    return clip_tokens(length)


def transformers_names(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """OpenCLIP's tensors under transformers' names: fused projections are split, the outer ones transposed."""
    for name, tensor in tensors.items():
        block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
        if block:
            prefix = f"{'vision' if block[1] else 'text'}_model.encoder.layers.{block[2]}"
            if block[3].startswith("attn.in_proj_"):
                kind = block[3].removeprefix("attn.in_proj_")
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    yield f"{prefix}.self_attn.{letter}_proj.{kind}", part
            else:
                module, _, kind = block[3].rpartition(".")
                yield f"{prefix}.{BLOCKS.get(module, module)}.{kind}", tensor
        elif name in ("visual.proj", "text_projection"):
            yield PARTS[name], tensor.t()
        else:
            module, _, kind = name.rpartition(".")
            yield PARTS.get(name) or (f"{PARTS[module]}.{kind}" if module in PARTS else name), tensor


def configuration(tensors: Mapping[str, Tensor], activation: str) -> dict[str, Any]:
    """Arguments of CLIPConfig for tensors in transformers' names."""
    text, vision = tensors["text_projection.weight"], tensors["visual_projection.weight"]
    vocabulary = len(tensors["text_model.embeddings.token_embedding.weight"])
    patch = tensors["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    positions = len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1  # without the class's
    return {
        "projection_dim": len(text),
        "text_config": {
            **_tower(tensors, "text_model", text.shape[1]),
            "vocab_size": vocabulary,
            "max_position_embeddings": len(tensors["text_model.embeddings.position_embedding.weight"]),
            "hidden_act": activation,
            "projection_dim": len(text),
            "bos_token_id": START if vocabulary == VOCABULARY else vocabulary - 2,
            "eos_token_id": END if vocabulary == VOCABULARY else vocabulary - 1,
            "pad_token_id": 0,
        },
        "vision_config": {
            **_tower(tensors, "vision_model", vision.shape[1]),
            "image_size": round(positions**0.5) * patch,
            "patch_size": patch,
            "hidden_act": activation,
            "projection_dim": len(vision),
        },
    }


def _tower(tensors: Mapping[str, Tensor], tower: str, width: int) -> dict[str, int]:
    layers = {name.split(".")[3] for name in tensors if name.startswith(f"{tower}.encoder.layers.")}
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers")
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": len(layers),
        "num_attention_heads": (VISION_HEADS if tower == "vision_model" else {}).get(width, max(width // 64, 1)),
    }
