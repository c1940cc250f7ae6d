"""CLIP's tokens from the vocabulary that ships with the project, so that a file of weights alone is enough."""

import html
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

MERGES = Path(__file__).parents[1] / "models/flux1/tokenizer/merges.txt"  # FLUX.1's CLIP and every other have the same
VOCABULARY = 49408  # tokens of every CLIP by OpenAI and OpenCLIP
START, END = VOCABULARY - 2, VOCABULARY - 1
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
STRAIGHT = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")

Tokens = Callable[[str], list[int]]


def clip_tokens(length: int) -> Tokens:
    """A function from a text to its tokens, from START to END, at most `length`: a longer text is cut before END."""
    tokenizer = _byte_pairs()
    return lambda text: [START, *tokenizer.encode(text).ids[: length - 2], END]


def as_open_clip(text: str) -> str:
    """A text as OpenCLIP's tokenizer reads it: HTML entities as characters, curly quotes straight.

    Its package ftfy also repairs wrongly decoded text, ligatures and full-width letters; those stay as they are here.
    """
    return html.unescape(html.unescape(text)).translate(STRAIGHT)


@cache
def _byte_pairs() -> Tokenizer:
    """The tokenizer of openai/clip-vit-large-patch14, built from its merges alone.

    A token is a byte, a byte that ends a word, or a merge, numbered in this order; START and END come last. They are
    not recognised in a text, so no prompt can end itself.
    """
    letters = _letters()
    pairs = (line.split(" ") for line in MERGES.read_text("utf-8").splitlines()[1:])  # after its version
    merges = [(first, second) for first, second in pairs]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    numbers = {token: n for n, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _letters() -> list[str]:
    """What stands for each byte: itself if it is printable, else a letter beyond Latin-1. In CLIP's own order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
