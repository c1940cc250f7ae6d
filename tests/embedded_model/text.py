"""Small tokenizers of CLIP's and T5's kinds, made from the words of the captions.

FLUX's own vocabularies (49,408 and 32,128 tokens) would make the embedding tables larger than the whole model.
Words outside the captions still encode: byte by byte with CLIP's tokenizer, letter by letter with T5's.
"""

import json
import math
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5TokenizerFast

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_LENGTH = 77  # tokens, as in FLUX


def clip_vocabulary(captions: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-level BPE with `</w>` word ends; `<|endoftext|>` has the highest id, as CLIP's pooling expects."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + "</w>" for a in alphabet)])}
    merges = []
    words = Counter(word for text in captions for word in text.split())
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    while pairs := count_pairs(pieces, words):
        # ties go to the lower ids: the library's own trainer decides them differently in every process
        best = min(pairs, key=lambda pair: (-pairs[pair], vocabulary[pair[0]], vocabulary[pair[1]]))
        merges.append(best)
        vocabulary.setdefault("".join(best), len(vocabulary))
        pieces = {word: merge(tokens, best) for word, tokens in pieces.items()}
    for special in (START, END):
        vocabulary[special] = len(vocabulary)
    return vocabulary, merges


def count_pairs(pieces: dict[str, list[str]], words: Counter) -> Counter:
    pairs: Counter = Counter()
    for word, tokens in pieces.items():
        for pair in zip(tokens, tokens[1:], strict=False):
            pairs[pair] += words[word]
    return pairs


def merge(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def clip_tokenizer(captions: Sequence[str], length: int = CLIP_LENGTH) -> CLIPTokenizer:
    vocabulary, merges = clip_vocabulary(captions)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def save_clip_tokenizer(captions: Sequence[str], folder: Path, length: int = CLIP_LENGTH) -> None:
    """Both layouts: tokenizer.json (transformers 5) and vocab.json with merges.txt (transformers 4)."""
    vocabulary, merges = clip_vocabulary(captions)
    clip_tokenizer(captions, length).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")


def t5_tokenizer(captions: Sequence[str]) -> T5TokenizerFast:
    """Unigram pieces with T5's ids (pad 0, end 1, unknown 2): every word of the captions, and single letters."""
    words = Counter(word for text in captions for word in text.split())
    total = sum(words.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -12.0)]
    pieces += [("▁" + word, math.log(count / total)) for word, count in sorted(words.items()) if len(word) > 1]
    pieces += [(letter, -14.0) for letter in string.digits + string.ascii_letters + string.punctuation]
    pieces += [("▁" + word, math.log(count / total)) for word, count in sorted(words.items()) if len(word) == 1]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def save_t5_tokenizer(captions: Sequence[str], folder: Path) -> None:
    """transformers 4 does not read the list of extra special tokens that transformers 5 writes; it is empty."""
    t5_tokenizer(captions).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop("extra_special_tokens", None)
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
