"""What makes the host wait is listed, with its place."""

import card
import pytest
import torch

WAITS = {
    "item": lambda x: x.sum().item(),
    "to host": lambda x: x.cpu(),
    "nonzero": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x),
    "to card": lambda x: torch.tensor([1], device="card"),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "synchronize": lambda x: card.module.synchronize(),
}


@pytest.mark.parametrize("kind", WAITS)
def test_a_wait_is_listed_with_its_place(kind):
    x = torch.ones(3, device="card")
    card.waits.clear()
    WAITS[kind](x)
    (wait,) = card.waits
    assert (wait.kind, wait.file, wait.function) == (kind, "card/test_card_waits.py", "<lambda>")
    assert str(wait).startswith(f"{kind} at card/test_card_waits.py:{wait.line} ")


FREE = {
    "arithmetic": lambda x: (x * 2 + 1).sum(),
    "a copy that is not waited for": lambda x: x.copy_(torch.ones(3), non_blocking=True),
    "made there": lambda x: torch.arange(3, device="card"),
    "an index of the card": lambda x: x[torch.zeros(3, device="card", dtype=torch.int64)],
    "repeats of a known number": lambda x: x.repeat_interleave(2),
    "chosen": lambda x: torch.where(x > 0, x, 0),
    "a gradient": lambda x: x.requires_grad_().square().sum().backward(),
}


@pytest.mark.parametrize("operation", FREE.values(), ids=FREE)
def test_other_operations_wait_for_nothing(operation):
    x = torch.ones(3, device="card")
    card.waits.clear()
    operation(x)
    assert card.waits == []
