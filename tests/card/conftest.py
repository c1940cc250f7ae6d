"""Each test finds the card as after its start."""

import gc

import card
import pytest


@pytest.fixture(autouse=True)
def fresh_card():
    gc.collect()
    card.reset()
    yield
    card.reset()
