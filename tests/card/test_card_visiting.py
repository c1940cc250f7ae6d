"""A model that waits in host memory goes to the card, and nothing but its first way home copies it back."""

import card
import pytest
import torch
from torch import nn

from trainer.models.storage.visiting import Visitor


class Model(nn.Module):
    """With a weight that two layers share, and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("numbers", torch.arange(3))
        self.requires_grad_(False)

    def forward(self, x):
        return self.second(self.first(x)) + self.numbers.sum()


@pytest.fixture
def model():
    with card.pinning():
        yield Model()


def kinds(model) -> set[str]:
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


def test_it_computes_the_same_there_and_at_home(model):
    x, visitor = torch.rand(2, 4), Visitor(model)
    expected = model(x)
    for _ in range(2):
        visitor.to(card.CARD)
        assert kinds(model) == {"card"}
        assert torch.equal(model(x.to("card")).cpu(), expected)
        visitor.to("cpu")
        assert kinds(model) == {"cpu"}
        assert torch.equal(model(x), expected)


def test_the_first_way_home_alone_copies(model):
    visitor = Visitor(model)
    visitor.to("card")
    visitor.to("cpu")
    places = [p.data_ptr() for p in model.parameters()]
    card.waits.clear()
    for _ in range(2):
        visitor.to(card.CARD)
        visitor.to("cpu")
    assert [p.data_ptr() for p in model.parameters()] == places
    assert not card.waits  # neither for the card, whose copies come from page-locked memory


def test_home_is_page_locked_and_the_card_is_left(model):
    before, visitor = card.memory.live, Visitor(model)
    visitor.to("card")
    there = card.memory.live - before
    assert there == sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    visitor.to("cpu")
    assert card.memory.live == before
    assert all(tensor.is_pinned() for tensor in (*model.parameters(), *model.buffers()))
    visitor.to("card")
    assert card.memory.live - before == there


def test_what_is_there_already_is_not_copied(model):
    visitor = Visitor(model)
    for device in ("cpu", "card"):
        visitor.to(device)
        tensors = [*model.parameters(), *model.buffers()]
        visitor.to(device)
        assert all(a is b for a, b in zip(tensors, (*model.parameters(), *model.buffers()), strict=True))


def test_a_weight_that_layers_share_stays_one_and_a_parameter(model):
    visitor = Visitor(model)
    for device in ("card", "cpu", "card"):
        visitor.to(device)
        assert model.first.weight is model.second.weight
        assert isinstance(model.first.weight, nn.Parameter)
        assert not model.first.weight.requires_grad


def test_on_a_full_card_the_way_home_is_open(model):
    x, visitor = torch.rand(2, 4), Visitor(model)
    expected = model(x)
    card.memory.limit = card.memory.live + model.first.weight.nbytes
    with pytest.raises(torch.OutOfMemoryError):
        visitor.to("card")
    visitor.to("cpu")
    assert torch.equal(model(x), expected)
