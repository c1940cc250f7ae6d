"""Each test finds the card as after its start."""

import card
import pytest


@pytest.fixture(autouse=True)
def fresh_card():
    card.reset()
    yield
    card.reset()
