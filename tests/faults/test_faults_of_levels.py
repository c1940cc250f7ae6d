"""A small share of what `tests/reliability.py` measures of a long run, and leaks that it must notice."""

import threading

import levels
import pytest
import torch

from trainer.store import writer

pytestmark = pytest.mark.skipif(not levels.PROCESS.exists(), reason="there is no /proc to read from")
ITERATIONS = 24  # the last third of which leaks eight times


def test_nothing_rises_while_a_process_goes_on():
    for row in levels.rows(share=0.01):
        assert row.held, row


def freed_but_resident() -> torch.Tensor:
    """Leaves 200 MiB in the heap for what comes, as other tests do; returns what holds them there."""
    torch.ones(7 * 2**20)  # what was freed once tells glibc how much to take from its heap
    return [torch.ones(2**20) for _ in range(51)][-1]


def wait_for_ever(end: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("what", ["files", "threads", "mapped", "objects", "resident"])
def test_what_each_iteration_leaves_behind_is_noticed(tmp_path, monkeypatch, what):
    kept, end, _above = [], threading.Event(), freed_but_resident()
    leaks = {
        "files": lambda: (tmp_path / "left").open("w"),
        "threads": lambda: wait_for_ever(end),
        "mapped": lambda: torch.from_file(str(tmp_path / f"left-{len(kept)}"), shared=True, size=16),
        "objects": lambda: bytearray(64 * 1024),
        "resident": lambda: torch.ones(2**20),  # 4 MiB
    }
    write_tiles = writer.write_tiles

    def leaking(*arguments):
        kept.append(leaks[what]())
        return write_tiles(*arguments)

    monkeypatch.setattr(writer, "write_tiles", leaking)
    with levels.traced():
        row = levels.measured("leak", levels.iterations, tmp_path, ITERATIONS)
    end.set()
    for one in kept if what == "files" else ():
        one.close()
    assert len(kept) == ITERATIONS
    assert not row.held
    assert f"too much: {what}" in next(iter(row.outcomes))
