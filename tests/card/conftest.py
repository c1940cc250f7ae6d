"""Each test finds the card as after its start."""

import gc

import pytest

import card


@pytest.fixture(autouse=True)
def fresh_card():
    gc.collect()
    card.reset()
    yield
    card.reset()
