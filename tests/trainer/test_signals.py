"""What systems send to end a program: a run ends in good order, with everything that was done."""

import os
import signal

import pytest
from signalling import Sender
from toy_runs import write_config

from trainer.__main__ import main
from trainer.cli import terminal
from trainer.cli.terminal import SIGNALS, interruptible
from trainer.training.checkpoint import load
from trainer.training.control import Control

THERE = [name for name in SIGNALS if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def heard():
    """Signals do what they do by themselves, though whoever started the tests may ignore them (nohup)."""
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in THERE)}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    def train(name: str) -> tuple[int, int, str]:
        """Exit code, iterations saved, what the terminal shows."""
        monkeypatch.setattr(Sender, "number", getattr(signal, name))
        config = write_config(tmp_path, iterations=30, save_every=100, reward="signalling:Sender")
        code = main(["train", str(config), "--set", f"run.folder={str(tmp_path / name)!r}"])
        return code, load(tmp_path / name / "checkpoint").iteration, capsys.readouterr().err

    return train


@pytest.mark.parametrize("name", THERE)
def test_a_signal_finishes_the_iteration_saves_and_exits_as_a_shell_reports_it(train, name):
    code, saved, told = train(name)
    assert (code, saved) == (128 + getattr(signal, name), 6)
    again = "Ctrl-C" if name == "SIGINT" else name
    assert f"finishing this iteration, then saving ({again} again to stop at once)" in told


@pytest.mark.parametrize(("name", "saved"), [("SIGTERM", 5), ("SIGINT", 6)])
def test_a_long_iteration_is_undone_for_who_may_kill_soon_and_finished_for_a_person(train, monkeypatch, name, saved):
    monkeypatch.setattr(terminal, "GRACE", 0)
    assert train(name)[1] == saved


def test_the_second_signal_stops_at_once():
    with interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.control.ending.kind == "stopped"
        assert interrupt.code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.code == 143


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_what_was_ignored_stays_ignored_and_handlers_come_back(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    try:
        term = signal.getsignal(signal.SIGTERM)
        with interruptible() as interrupt:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.pressed
            assert signal.getsignal(signal.SIGTERM) == interrupt.press
        assert signal.getsignal(signal.SIGTERM) == term
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_earliest_deadline_of_a_stop_counts():
    control = Control()
    control.stop()
    assert not control.overdue
    control.stop(within=0)
    assert control.overdue
    control.stop(within=1000)
    assert control.overdue
