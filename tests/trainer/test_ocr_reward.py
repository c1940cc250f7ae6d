"""The OCR reward: its definition with a reader that the tests play, and RapidOCR on text where it is installed.

`text/` holds the word "Neighbor", drawn with Pillow in eight typefaces, one a file: its name says the face and the size
in pixels. Measured with rapidocr 3.9 and 3.10: every file scores 1 for its word, and at most 1/3 for another one.
"""

import functools
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.rewards import RewardError, build, check_prompts
from trainer.rewards.ocr import SETTINGS, levenshtein, similarity
from trainer.rewards.quoted import quoted
from trainer.training.run import start_run

TEXT = sorted((Path(__file__).parent / "text").glob("*.png"))
PROMPT = 'a poster that says "Neighbor"'


class Reader:
    """RapidOCR as the tests need it: reads the words given, remembers the pictures it got."""

    words: tuple[str, ...] | None = ()

    def __init__(self, params):
        self.params, self.seen = params, []

    def __call__(self, picture):
        self.seen.append(picture)
        return types.SimpleNamespace(txts=self.words)


@pytest.fixture
def reader(monkeypatch):
    """The class of a reader in RapidOCR's place, its words to be set."""
    monkeypatch.setitem(sys.modules, "rapidocr", types.SimpleNamespace(RapidOCR=Reader))
    monkeypatch.setattr(Reader, "words", ())
    return Reader


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('a sign that says "OPEN 24 h" at night', "OPEN 24 h"),
        ('"first" and "second"', "first"),
        ("a sign that says “offen”, in a street", "offen"),
        ("ein Schild „geöffnet“ im Fenster", "geöffnet"),
        ("une enseigne «ouvert» la nuit", "ouvert"),
        ("霓虹灯写着「营业中」", "营业中"),
        ('the dog\'s bowl says "REX" and the cat\'s "TOM"', "REX"),
        ('''a note: "don't panic"''', "don't panic"),
        ("long " * 500 + '"end"', "end"),
        ("skylt ”ÖPPET” i fönstret", "ÖPPET"),
        ("ein »OFFEN« im Fenster", "OFFEN"),
        ('a sign "OPEN” with two kinds', "OPEN"),
        ('says"OPEN"now, without spaces', "OPEN"),
        ('霓虹灯写着"营业中"', "营业中"),
        ('a sign " OPEN "', " OPEN "),
        ('nothing in "" but here: "A"', "A"),
    ],
)
def test_the_target_is_the_first_text_in_double_quotes_of_any_kind(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('a 24" monitor that shows "HELLO"', "HELLO"),
        ("a 24” monitor that shows “HELLO”", "HELLO"),
        ('a 24 " monitor that shows "HELLO"', "HELLO"),
        ('a 24"x36" poster "SALE"', "SALE"),
        ('a 24"-wide sign: "BIG"', "BIG"),
        ('a 6½" knife, engraved "CUT"', "CUT"),
        ('a 5\'10" man holding "HI"', "HI"),
        ('the 24" and 27" monitors show "ONE" and "TWO"', "ONE"),
        ('a sign "24" on a 27" monitor', "24"),
        ('a clock shows "10:30" and is 12" wide', "10:30"),
        ('"7" and "ON"', "7"),
        ('"Route 66" and "OPEN 24"', "Route 66"),
        ('a sign that says "24" TV SALE"', '24" TV SALE'),
        ('"size 24""', 'size 24"'),
    ],
)
def test_inch_marks_are_no_quotes_unless_they_close_one(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('a sign \\"OPEN\\" here', "OPEN"),
        ('a 24" monitor that shows \\"HELLO\\"', "HELLO"),
        ('a sign "say \\"hi\\" now"', 'say "hi" now'),
        ('a sign \\"OPEN\\" beside "CLOSED"', "OPEN"),
    ],
)
def test_quotes_with_a_backslash_are_quotes_or_part_of_a_text_between_others(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a sign ‘OPEN’ at night", "OPEN"),
        ("the dog’s bowl ‘REX’", "REX"),
        ("a note ‘don’t panic’", "don’t panic"),
        ("ein Schild ‚OFFEN‘", "OFFEN"),
        ("a sign ‘OPEN’ beside “CLOSED”", "CLOSED"),
        ("“he said ‘hi’ now”", "he said ‘hi’ now"),
        ('"say “hi” now"', "say “hi” now"),
    ],
)
def test_single_typographic_quotes_count_if_there_are_no_double_ones_and_apostrophes_never(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        *("", "a red apple", "the dog's bowl and the cat's bed", "a sign 'OPEN'", 'an open "quote', '""', '" "', '"'),
        *('a 24" monitor', 'a 3.5" disk, 2" thick', "the dogs’ bowls and the cat’s", "‘Twas the night", '“ ” and ""'),
    ],
)
def test_a_prompt_without_quoted_text_is_refused_with_the_prompt_and_the_remedy(prompt, reader):
    with pytest.raises(RewardError, match="has no text in double quotes to look for, as in") as caught:
        build("ocr", {}, "cpu").score(torch.zeros(1, 3, 32, 32), [prompt])
    assert repr(prompt) in str(caught.value)


def test_a_long_prompt_is_cut_in_the_message():
    with pytest.raises(RewardError) as caught:
        quoted("word " * 500)
    assert len(str(caught.value)) < 250


def test_a_run_with_such_a_prompt_ends_before_anything_is_loaded(config_file, reader):
    from trainer.settings.config_file import load_config

    config = load_config(config_file(head='prompts = ["no text"]', rewards='[[rewards]]\nkind = "ocr"'))
    with pytest.raises(RewardError, match="'no text'"):
        start_run(config, load=lambda config: pytest.fail("loaded"))
    assert not Path(config.run.folder).exists()


def test_prompts_are_only_checked_for_rewards_that_ask_for_it():
    check_prompts(["colourfulness", "values"], ["no quotes"])
    check_prompts(["ocr"], [PROMPT])
    with pytest.raises(RewardError, match="'no quotes'"):
        check_prompts(["colourfulness", "ocr"], [PROMPT, "no quotes"])


@pytest.mark.parametrize(
    ("read", "target", "expected"),
    [
        ("neighbor", "Neighbor", 1),
        ("N E I G H\tBOR", "Neigh bor", 1),
        ("Welcome, neighbor! Come in", "Neighbor", 1),  # contained: Flow-GRPO's rule
        ("neighbour", "neighbor", 7 / 8),
        ("nighbr", "neighbor", 6 / 8),
        ("", "neighbor", 0),
        ("something else altogether, and much longer", "neighbor", 0),
        ("Straße", "STRASSE", 5 / 7),
    ],
)
def test_similarity_is_one_minus_edits_over_length(read, target, expected):
    assert similarity(read, target) == pytest.approx(expected)


short = st.text("abc", max_size=6)


@given(short, short)
def test_levenshtein_is_its_recursive_definition(a, b):
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert levenshtein(a, b) == distance(len(a), len(b))


def test_each_picture_is_read_for_its_own_prompt_in_8_bits_blue_first(reader):
    reward = build("ocr", {}, "cpu")
    reader.words = ("Neigh", "bor")
    images = torch.zeros(2, 3, 4, 6)
    images[0, 0], images[1, 2] = 0.603, 1.0  # the first is red, the second blue
    scores = reward.score(images, [PROMPT, 'the word "naughbor"'])
    assert scores.tolist() == pytest.approx([1, 6 / 8])
    assert [p.shape for p in reward.reader.seen] == [(4, 6, 3)] * 2
    assert [p[0, 0].tolist() for p in reward.reader.seen] == [[0, 0, 154], [255, 0, 0]]
    assert reward.reader.params == SETTINGS


def test_a_picture_in_which_nothing_is_found_scores_0(reader):
    reader.words = None
    assert build("ocr", {}, "cpu").score(torch.zeros(1, 3, 32, 32), [PROMPT]).tolist() == [0]


def test_without_the_package_the_error_says_what_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(
        RewardError, match=r'rapidocr is not installed, run: .+ -m pip install "rapidocr>=3.9" onnxruntime$'
    ):
        build("ocr", {}, "cpu")


@pytest.fixture(scope="module")
def rapidocr():
    """The reward with the real reader."""
    if not os.environ.get("CI"):  # there it has to be
        pytest.importorskip("rapidocr", reason="needs rapidocr and onnxruntime, the ocr extra, which dev.py installs")
    return build("ocr", {}, "cpu")


def picture(path: Path) -> torch.Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_there_are_eight_typefaces():
    assert len(TEXT) == 8


@pytest.mark.parametrize("path", TEXT, ids=lambda p: p.stem)
def test_rendered_text_scores_1_and_as_another_text_little(rapidocr, path):
    assert rapidocr.score(picture(path), [PROMPT]).item() == 1
    others = ['"Zeitgeist"', '"OPEN 24 h"', '"a"']
    assert rapidocr.score(picture(path).expand(3, -1, -1, -1), others).tolist() == pytest.approx([3 / 9, 0, 0])


def without_text(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return {
        "black": torch.zeros(1, 3, 128, 128),
        "white": torch.ones(1, 3, 128, 128),
        "noise": torch.rand(1, 3, 128, 128, generator=generator),
        "stripes": (torch.arange(128) // 8 % 2).float().expand(1, 3, 128, 128),
        "smallest": torch.rand(1, 3, 16, 16, generator=generator),
    }[kind]


@pytest.mark.parametrize("kind", ["black", "white", "noise", "stripes", "smallest"])
def test_a_picture_without_text_scores_0(rapidocr, kind):
    assert rapidocr.score(without_text(kind), [PROMPT]).item() == 0


def test_a_misspelled_word_scores_in_between(rapidocr):
    scores = rapidocr.score(picture(TEXT[-1]).repeat(2, 1, 1, 1), ['"Neighbour"', '"Nachbar"'])
    assert scores.tolist() == pytest.approx([8 / 9, 3 / 7])


OFFLINE = """
import json, socket, sys
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from trainer.rewards import build
reader = build("ocr", {}, "cpu")
print(json.dumps(reader.read(np.load(sys.argv[1]))))
"""


def test_the_reader_needs_no_network_and_prints_nothing(rapidocr, tmp_path):
    np.save(tmp_path / "picture.npy", np.asarray(Image.open(TEXT[-1]).convert("RGB")))
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path / "picture.npy")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (json.loads(done.stdout), done.stderr) == ("Neighbor", "")
