"""Each test finds the card as after its start."""

import pytest

from trainer.models.storage.fetching import LayerFetcher


@pytest.fixture(autouse=True)
def fresh_card():
    import card

    card.reset()
    yield
    card.reset()


@pytest.fixture(autouse=True)
def few_bytes_ahead(monkeypatch):
    """Of small models too a part is on the card alone."""
    monkeypatch.setattr(LayerFetcher, "ahead", 2**17)
