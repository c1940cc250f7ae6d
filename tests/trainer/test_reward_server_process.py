"""The reward server as a process of its own: killed in mid-run, stopped in good order, and mistakes in its command."""

import signal
import socket
import sqlite3
import threading
import time

import pytest
import torch
from patience import GUARD
from safetensors.torch import load_file
from served import ServerProcess

from trainer.__main__ import main
from trainer.events import IterationDone, Resumed, Saved, Waiting
from trainer.rewards import build
from trainer.settings.config_file import load_config
from trainer.store.database import DATABASE
from trainer.training import waiting
from trainer.training.run import start_run
from trainer.training.run_folder import LORA


def kill_in_mid_request(process):
    """As soon as a request is in it."""
    while process.health()["requests"] == 0:
        time.sleep(0.01)
    process.kill()


@pytest.fixture
def process(tmp_path):
    process = ServerProcess(tmp_path / "rewards.toml")
    yield process
    process.kill()


def test_a_server_killed_in_mid_run_and_started_again_leaves_the_same_run(config_file, tmp_path, process, monkeypatch):
    """Killed between two requests and in the middle of one. The undisturbed run scores in its own process."""
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 1.0)
    local = '[[rewards]]\nkind = "tiny-clip"'
    options = f"options = {{ url = {process.url!r}, retries = 1, timeout = {GUARD} }}"
    remote = f'[[rewards]]\nkind = "remote"\nname = "tiny-clip"\n{options}'

    def config(name, rewards):
        return load_config(config_file(rewards=rewards), [f"run.folder={str(tmp_path / name)!r}", "run.iterations=6"])

    start_run(config("whole", local))
    events, killers = [], []

    def disturb(event):
        events.append(event)
        match event:
            case IterationDone(iteration=1):
                process.kill()
            case IterationDone(iteration=3):
                killers.append(threading.Thread(target=kill_in_mid_request, args=(process,)))
                killers[0].start()
            case Waiting():
                process.start()

    process.config.write_text("[[rewards]]\nkind = 'tiny-clip'\n[server]\nbatch_window = 0.3\n", "utf-8")
    process.start().ready()
    assert start_run(config("run", remote), listeners=[disturb])[0].kind == "complete"
    killers[0].join()
    assert [e.iteration for e in events if isinstance(e, Waiting)] == [2, 4]
    assert [e.iteration for e in events if isinstance(e, Resumed)] == [2, 4]
    assert [e.iteration for e in events if isinstance(e, IterationDone)] == list(range(6))
    assert {2, 4} <= {e.iteration for e in events if isinstance(e, Saved)}
    lora, whole = (load_file(tmp_path / name / LORA) for name in ("run", "whole"))
    assert all(torch.equal(lora[name], whole[name]) for name in whole)
    scores = "SELECT iteration, slot, candidate, reward, value FROM scores ORDER BY 1, 2, 3"
    tables = [sqlite3.connect(tmp_path / name / DATABASE).execute(scores).fetchall() for name in ("run", "whole")]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 6 * 8
    assert process.stop() == 0


def test_the_command_serves_until_it_is_asked_to_stop(process, tmp_path):
    process.config.write_text("[[rewards]]\nkind = 'colourfulness'\n[server]\nbatch_window = 1\n", "utf-8")
    assert process.start().ready() == {"url": process.url, "rewards": ["colourfulness"]}
    remote, images, found = build("remote", {"url": process.url}, "cpu"), torch.rand(3, 3, 16, 16), []
    asking = threading.Thread(target=lambda: found.append(remote.score(images, ["a"] * 3)))
    asking.start()
    while not process.health()["requests"]:
        time.sleep(0.01)
    assert process.stop() == 0  # SIGTERM: what was accepted is finished
    asking.join(GUARD)
    assert torch.equal(found[0], build("colourfulness", {}, "cpu").score(images, []))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.toml"], "error: none.toml: cannot be read"),
        (["--token-file", "none"], "error: --token-file none: cannot be read"),
        (["--port", "BUSY"], "cannot be listened on (address already in use): use another --port or --host"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid:0 cannot be listened on ("),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(process, capsys, words, message):
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        words = [str(busy.getsockname()[1]) if word == "BUSY" else word for word in words]
        process.config.write_text("[[rewards]]\nkind = 'colourfulness'\n", "utf-8")
        assert main(["reward-server", "--config", str(process.config), "--port", "0", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert signal.getsignal(signal.SIGTERM) == before
