"""Cards, and the seconds that kernels take on them at the least."""

import json
from collections import Counter
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.planning.cards import CARDS, Card, card_named, measured, nearest
from trainer.planning.kernels import ELEMENTWISE, FETCH, PRODUCT, Kernel
from trainer.planning.roofline import by_kind, iteration, seconds

H200 = Path(__file__).parents[2] / "docs/gpu/h200.json"
CARD = Card("one", 16, bf16=100, fp8=200, float32=50, bandwidth=1, host=20)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Kernel(PRODUCT, 2, 10**14, 10**9), 1.0),  # 100 TFLOP at 100 TFLOP/s
        (Kernel(PRODUCT, 1, 10**14, 10**9), 0.5),
        (Kernel(PRODUCT, 4, 10**14, 10**9), 2.0),
        (Kernel(PRODUCT, 2, 10**12, 10**11), 0.1),  # 100 GB at 1 TB/s
        (Kernel(ELEMENTWISE, 2, 0, 10**10), 0.01),
        (Kernel(FETCH, 1, 0, 10**9), 0.05),  # 1 GB at 20 GB/s
    ],
)
def test_a_kernel_takes_the_longer_of_its_arithmetic_and_its_bytes(kernel, expected):
    assert by_kind(Counter({kernel: 3}), CARD) == {kernel.kind: pytest.approx(3 * expected)}


def test_copies_from_the_host_come_beside_the_kernels():
    computing, fetching = Kernel(ELEMENTWISE, 2, 0, 10**12), Kernel(FETCH, 1, 0, 10**10)  # 1 s, 0.5 s
    assert seconds(Counter({computing: 2, fetching: 3}), CARD) == pytest.approx(2.0)
    assert seconds(Counter({computing: 2, fetching: 5}), CARD) == pytest.approx(2.5)


def test_an_iteration_is_its_phases_and_neither_what_came_before_nor_their_parts():
    one = Kernel(ELEMENTWISE, 2, 0, 1)
    names = ("encode", "load", "rollout", "decode", "update", "forward", "pairs")
    assert iteration({name: Counter({one: 10**place}) for place, name in enumerate(names)}) == {one: 11100}


@pytest.mark.parametrize("card", CARDS, ids=str)
def test_the_table_is_in_the_units_that_it_says(card):
    assert 8 <= card.memory <= 144
    assert 20 <= card.bf16 <= card.fp8 <= 2.05 * card.bf16
    assert card.float32 <= card.bf16 / 1.9
    assert 50 <= card.bf16 / card.bandwidth <= 400  # FLOP in the time of a byte
    assert 10 <= card.host <= 55
    assert card_named(card.name) == card


def test_cards_are_found_by_their_makers_names_and_by_their_memory():
    assert card_named("NVIDIA GeForce RTX 4090").name == "4090"
    assert card_named("rtx4070ti super").name == "4070 Ti Super"
    assert card_named("NVIDIA A100-SXM4-80GB").name == "A100"
    assert [nearest(size).name for size in (6, 16, 22, 24, 141)] == ["4060", "4060 Ti", "3090", "3090", "H200"]
    for name in ("1080", "RTX A1000", "14090"):
        with pytest.raises(ConfigError, match=f"--card {name}: must be one of 4060, "):
            card_named(name)


def test_a_measured_card_has_its_own_rates_and_the_tables_proportions():
    card = measured(H200)
    assert str(card) == "NVIDIA H200, measured"
    assert (card.memory, card.bf16) == (139.8, pytest.approx(792, abs=1))
    assert (card.bandwidth, card.host) == (pytest.approx(4.18, abs=0.01), pytest.approx(52.2, abs=0.1))
    assert card.fp8 == pytest.approx(2 * card.bf16)


def test_a_card_that_nobody_knows_is_measured_too(tmp_path):
    found = json.loads(H200.read_text("utf-8"))
    found["head"]["card"] = "Another 5"
    (tmp_path / "found.json").write_text(json.dumps(found), "utf-8")
    card = measured(tmp_path / "found.json")
    assert (card.fp8, card.float32) == (card.bf16, card.bf16 / 2)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"head": {"card": "H200", "memory_gib": 9}, "checks": []}'])
def test_a_file_without_rates_is_refused(tmp_path, text):
    if text:
        (tmp_path / "found.json").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"--measured .*found\.json: (cannot be read|no rates of a card)"):
        measured(tmp_path / "found.json")
