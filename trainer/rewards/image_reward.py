"""ImageReward (Xu et al., arXiv 2304.05977): how much people prefer a picture for its prompt."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from ..models.files.headers import MOST_LAYERS
from ..models.storage.visiting import Visitor
from .base import pick_dtype
from .errors import RewardError
from .preprocess import Preprocess
from .tensor_files import MISFITS, read_tensors
from .weights import find

VOCABULARY = ("vocab.txt", "bert-base-uncased/vocab.txt")  # beside the weights

LENGTH = 35  # tokens of a prompt, with [CLS] and [SEP]; what is longer is cut
HEAD = (0, 2, 4, 6, 7)  # the linear layers of mlp.layers; dropouts stand between, and no activation
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw scores on its training data
HEAD_WIDTH = 64  # numbers an attention head, in every BLIP

# BLIP's names, as its authors gave them -> those of transformers
RENAMED = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"^(vision\.encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.qkv\.", r"\1.self_attn.qkv."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
)
# of BLIP's pre-training, and a buffer that is only 0, 1, 2, ...
UNUSED = re.compile(r"^blip\.(vision_proj|text_proj)\.|\.position_ids$")


class ImageReward:
    """(MLP(h) - mean) / std, where h is BLIP's state of the prompt's first token after it has seen the picture.

    About -2 to 2: on its training data the mean is 0 and the standard deviation 1. Prompts are cut after 35 tokens.
    """

    def __init__(self, model: "Blip", tokenizer: BertWordPieceTokenizer):
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.visitor = Visitor(model)
        self.preprocess = Preprocess(model.size, centred_by_rounding=True)
        tokenizer.enable_truncation(LENGTH)
        tokenizer.enable_padding()

    def to(self, device: str | torch.device) -> "ImageReward":
        self.visitor.to(device)
        return self

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [N], float32."""
        first = next(self.model.parameters())
        encoded = self.tokenizer.encode_batch(list(prompts))
        tokens = torch.tensor([e.ids for e in encoded], device=first.device)  # [N, L]
        mask = torch.tensor([e.attention_mask for e in encoded], device=first.device)
        pixels = self.preprocess(images).to(first.device, first.dtype)
        return ((self.model(pixels, tokens, mask) - MEAN) / STD).to(images.device)


class WideLinear(nn.Linear):
    """A layer of the head: as the original, no half precision here."""

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight.float(), self.bias.float())


class Blip(nn.Module):
    """BLIP's vision and text encoder and ImageReward's head, each of the size that the tensors have."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig, head: Mapping[int, tuple[int, ...]]):
        super().__init__()
        self.size = vision.image_size  # pixels
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = nn.ModuleDict({str(n): WideLinear(wide, out) for n, (out, wide) in head.items()})

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """pixels [N, 3, size, size], tokens and mask [N, L] -> raw scores [N], float32."""
        seen = self.vision(pixels).last_hidden_state  # [N, patches + 1, D]
        # not a decoder: with its causal mask the first token would see no other
        states = self.text(tokens, mask, encoder_hidden_states=seen, is_decoder=False).last_hidden_state
        h = states[:, 0].float()
        for layer in self.head.values():
            h = layer(h)
        return h[:, 0]


def image_reward(device: str, path: str = "", dtype: str = "auto") -> ImageReward:
    """ImageReward 1.0. `path` is its file; empty looks into models/rewards.

    Raises:
        RewardError: the weights or the vocabulary are missing, damaged, or those of another model.
    """
    file = find("imagereward", path)
    model = load_blip(file)
    vocabulary = load_vocabulary(file, model.text.config.vocab_size)
    return ImageReward(model.to(device, pick_dtype(dtype, device)), vocabulary)


def load_blip(file: Path) -> Blip:
    """The model of a file of ImageReward's tensors in their original names, on the CPU in the file's dtype."""
    tensors = dict(renamed(read_tensors(file)))
    try:
        with torch.device("meta"):
            model = Blip(*configuration(tensors))
        model.load_state_dict(tensors, assign=True)
    except MISFITS as error:
        reason = " ".join(str(error).split())[:160]
        raise RewardError(f"{file} is not ImageReward 1.0 in its original form ({reason})") from error
    positions = model.text.config.max_position_embeddings
    model.text.embeddings.position_ids = torch.arange(positions)[None]  # the one thing that no file holds
    return model


def renamed(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Tensors under this module's names, without those that no score needs."""
    pairs = []
    for name, tensor in tensors.items():
        if not UNUSED.search(name):
            for pattern, replacement in RENAMED:
                name = re.sub(pattern, replacement, name)
            pairs.append((name, tensor))
    return pairs


def configuration(
    tensors: Mapping[str, Tensor],
) -> tuple[BlipVisionConfig, BlipTextConfig, dict[int, tuple[int, ...]]]:
    """The sizes that the tensors have. Raises KeyError if one is missing."""
    width, _, patch, _ = tensors["vision.embeddings.patch_embedding.weight"].shape
    patches = tensors["vision.embeddings.position_embedding"].shape[1] - 1  # without the class's
    words, text_width = tensors["text.embeddings.word_embeddings.weight"].shape
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(tensors["vision.encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=_layers(tensors, "vision.encoder.layers."),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=round(patches**0.5) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        vocab_size=words,
        hidden_size=text_width,
        encoder_hidden_size=width,
        intermediate_size=len(tensors["text.encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=_layers(tensors, "text.encoder.layer."),
        num_attention_heads=text_width // HEAD_WIDTH,
        max_position_embeddings=len(tensors["text.embeddings.position_embeddings.weight"]),
        layer_norm_eps=1e-12,
    )
    return vision, text, {n: tuple(tensors[f"head.{n}.weight"].shape) for n in HEAD}


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    count = len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
    if count > MOST_LAYERS:
        raise ValueError(f"it has {count} layers")
    return count


def load_vocabulary(file: Path, words: int) -> BertWordPieceTokenizer:
    """bert-base-uncased's tokenizer with BLIP's two tokens, from the vocabulary beside the weights.

    Raises:
        RewardError: there is none, or it has not the number of `words` that the weights have.
    """
    found = [file.parent / name for name in VOCABULARY if (file.parent / name).is_file()]
    if not found:
        raise RewardError(
            f"imagereward: {VOCABULARY[0]} is missing (232 kB, licence Apache-2.0): "
            f"get it from huggingface.co/google-bert/bert-base-uncased and put it into {file.parent.absolute()}"
        )
    try:
        tokenizer = BertWordPieceTokenizer.from_file(str(found[0]), lowercase=True)
    except Exception as error:  # the library raises nothing narrower
        raise RewardError(f"{found[0]} is no vocabulary of BERT ({error}): download it again") from error
    tokenizer.add_special_tokens(["[DEC]", "[ENC]"])
    if tokenizer.get_vocab_size() != words:
        raise RewardError(
            f"{found[0]} has {tokenizer.get_vocab_size() - 2} words, {file.name} needs {words - 2}: "
            "get the one of google-bert/bert-base-uncased"
        )
    return tokenizer
