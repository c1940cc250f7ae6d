"""The tokeniser that ships, against OpenCLIP's."""

import random

import pytest
from open_clip.tokenizer import SimpleTokenizer
from small_clip import TEXTS

from trainer.rewards.clip_tokens import END, START, VOCABULARY, as_open_clip, clip_tokens

LETTERS = "abcdefghij klmnop'!?.,0129 -_/é日😀Å\u0301"


@pytest.fixture(scope="module")
def original() -> SimpleTokenizer:
    return SimpleTokenizer()


def padded(tokens: list[int]) -> list[int]:
    return tokens + [0] * (77 - len(tokens))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_tokens_are_open_clips(original, text):
    assert padded(clip_tokens(77)(as_open_clip(text))) == original([text])[0].tolist()


def test_tokens_of_random_texts_are_open_clips(original):
    draw, tokens = random.Random(0), clip_tokens(77)
    texts = ["".join(draw.choices(LETTERS, k=draw.randint(0, 60))) for _ in range(500)]
    assert [t for t in texts if padded(tokens(as_open_clip(t))) != original([t])[0].tolist()] == []


def test_every_number_up_to_the_end_token_is_in_use(original):
    assert (original.sot_token_id, original.eot_token_id, original.vocab_size) == (START, END, VOCABULARY)


def test_a_long_text_keeps_its_end_token_and_an_empty_one_has_nothing_else():
    assert clip_tokens(77)("")[:] == [START, END]
    cut = clip_tokens(77)("red apple " * 200)
    assert len(cut) == 77
    assert (cut[0], cut[-1], cut.count(END)) == (START, END, 1)


def test_a_prompt_cannot_end_itself():
    assert clip_tokens(77)("a cat <|endoftext|> a dog <end_of_text>").count(END) == 1
