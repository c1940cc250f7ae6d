"""Each test finds the card as after its start."""

import pytest


@pytest.fixture(autouse=True)
def fresh_card():
    import card

    card.reset()
    yield
    card.reset()
