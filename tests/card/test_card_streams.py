"""Copies beside the computation: done when somebody waits, and refused if nobody did."""

import card
import pytest
import torch

compute = torch.Tensor.square  # something that the computing stream does


@pytest.fixture
def side():
    return card.Stream(card.CARD)


def copied(side: card.Stream, target: torch.Tensor, source: torch.Tensor, *, wait: bool = True) -> card.Event:
    if wait:
        side.wait_stream(card.module.current_stream())
    with card.module.stream(side):
        target.copy_(source, non_blocking=True)
    return side.record_event()


def fresh(n: int = 3) -> torch.Tensor:
    return torch.empty(n, device="card")


WAITS = {
    "event": lambda side, event: card.module.current_stream().wait_event(event),
    "event's own": lambda side, event: event.wait(),
    "stream": lambda side, event: card.module.current_stream().wait_stream(side),
    "host, for the event": lambda side, event: event.synchronize(),
    "host, for the stream": lambda side, event: side.synchronize(),
    "host, for all": lambda side, event: card.module.synchronize(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_copy_that_is_waited_for_is_there(side, wait):
    x = fresh()
    event = copied(side, x, torch.ones(3))
    assert not event.query()
    wait(side, event)
    assert event.query()
    assert x.tolist() == [1, 1, 1]
    assert not card.races


def test_a_copy_that_nobody_waited_for_may_not_be_read(side):
    x = fresh()
    copied(side, x, torch.ones(3))
    with pytest.raises(card.Race, match="yet to fill"):
        compute(x)


def test_if_races_are_let_pass_it_is_not_a_number(side):
    card.Streams.strict = False
    x = torch.zeros(3, device="card")
    copied(side, x, torch.ones(3))
    y = compute(x)
    card.module.synchronize()
    assert y.isnan().all()
    assert x.tolist() == [1, 1, 1]
    assert len(card.races) == 1


def test_an_event_that_was_recorded_too_early_is_no_wait(side):
    x = fresh()
    early = side.record_event()
    copied(side, x, torch.ones(3))
    card.module.current_stream().wait_event(early)
    with pytest.raises(card.Race):
        compute(x)


def test_a_wait_for_a_stream_counts_for_what_that_one_waited_for(side):
    x, third = fresh(), card.Stream()
    third.wait_event(copied(side, x, torch.ones(3)))
    card.module.current_stream().wait_stream(third)
    assert compute(x).tolist() == [1, 1, 1]


def test_a_copy_into_memory_that_is_still_used_is_refused(side):
    x = fresh()
    with pytest.raises(card.Race, match="may still use"):
        copied(side, x, torch.ones(3), wait=False)


def test_a_copy_out_of_memory_that_is_still_written_is_refused(side):
    x, y = torch.ones(3, device="card"), fresh()
    side.wait_stream(card.module.current_stream())
    x.add_(1)
    with pytest.raises(card.Race, match="yet to fill"):
        copied(side, y, x, wait=False)


def test_memory_of_a_copy_under_way_may_not_be_written(side):
    x, y = torch.ones(3, device="card"), fresh()
    copied(side, y, x)
    with pytest.raises(card.Race, match="may still use"):
        x.zero_()


@pytest.mark.parametrize("end", ["into", "out of"])
def test_memory_that_is_given_back_before_its_copy_is_done_may_not_be_taken_again(side, end):
    x = fresh()
    copied(side, *((x, torch.ones(3)) if end == "into" else (torch.empty(3), x.zero_())))
    del x
    with pytest.raises(card.Race, match="may still use"):
        torch.zeros(3, device="card")


def test_with_a_wait_in_between_it_may(side):
    x = fresh()
    event = copied(side, x, torch.ones(3))
    del x
    card.module.current_stream().wait_event(event)
    assert torch.zeros(3, device="card").tolist() == [0, 0, 0]


def test_recorded_memory_is_the_allocators_care(side):
    x = fresh()
    copied(side, x, torch.ones(3))
    x.record_stream(side)
    del x
    assert torch.zeros(3, device="card").tolist() == [0, 0, 0]


@pytest.mark.parametrize("pinned", [False, True])
def test_pinned_memory_is_read_when_the_copy_is_done_and_other_memory_at_once(side, pinned):
    with card.pinning():
        source = torch.empty(3, pin_memory=pinned)
        source.fill_(1)
        x = fresh()
        event = copied(side, x, source)
        source.fill_(2)  # too early
        event.synchronize()
    assert x.tolist() == [2 if pinned else 1] * 3


def test_a_copy_to_the_host_is_there_when_the_host_has_waited():
    x = torch.ones(3, device="card")
    host = x.to("cpu", non_blocking=True)
    x.zero_()
    assert host.isnan().all()
    card.module.current_stream().synchronize()
    assert host.tolist() == [1, 1, 1]


def test_an_operation_on_another_stream_follows_the_copies_there(side):
    x = fresh()
    copied(side, x, torch.ones(3))
    with card.module.stream(side):
        y = x * 2
        assert card.module.current_stream() is side
    with pytest.raises(card.Race):
        compute(y)
    card.module.current_stream().wait_stream(side)
    assert y.tolist() == [2, 2, 2]
