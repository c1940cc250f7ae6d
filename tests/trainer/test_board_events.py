"""What a watcher notices, and how it reaches browsers."""

import asyncio
import json
import sqlite3

import aiohttp
import pytest
import torch
from board_server import running
from patience import GUARD, until
from run_folders import Run, write

from trainer.board.app import HUB, make_app
from trainer.board.events import PENDING, Hub
from trainer.board.live import Announcer
from trainer.board.routes import PREFIX
from trainer.board.watch import ALL, BURST, Watcher
from trainer.events import (
    Change,
    Changed,
    Ending,
    Evaluated,
    Finished,
    IterationDone,
    Paused,
    Resumed,
    Saved,
    Skipped,
    Started,
    Unpaused,
    Waiting,
)
from trainer.lock import exclusive
from trainer.store import writer as metrics
from trainer.store.database import DATABASE


def done(iteration: int) -> IterationDone:
    return IterationDone(
        iteration=iteration,
        metrics={"loss": iteration / 2, "grad_norm": float("inf")},
        prompts=["a cat"],
        seeds=[7],
        scores={"clip": torch.tensor([[1.0, 3.0]])},
        advantages=torch.tensor([[-1.0, 1.0]]),
        anchors=torch.tensor([[True, False]]),
        images=torch.zeros(2, 3, 16, 16),
    )


@pytest.fixture
def watcher(tmp_path):
    found = Watcher(lambda: tmp_path)
    found.look()
    return found


def told(watcher, looks=1):
    return [
        (m["type"], m["run"], m["iteration"], m.get("state") or m.get("metrics"))
        for _ in range(looks)
        for m in watcher.look()
    ]


def test_a_run_is_told_from_its_start_to_its_end(tmp_path, watcher):
    loss = lambda i: {"loss": i / 2, "grad_norm": None}  # noqa: E731
    (tmp_path / "run").mkdir()
    with exclusive(str((tmp_path / "run").absolute()), "busy"), metrics.open_store(tmp_path / "run") as store:
        store(Started(0, 5))
        assert told(watcher, ALL) == [("started", "run", 0, None)]
        store(done(0))
        assert told(watcher) == [("iteration", "run", 0, loss(0))]
        assert told(watcher) == []
        store(done(1))
        store(Saved(2, "lora"))
        store(done(2))
        assert told(watcher) == [("iteration", "run", n, loss(n)) for n in (1, 2)] + [("saved", "run", 3, None)]
        store.set_info(state="paused")
        assert told(watcher) == [("state", "run", 3, "paused")]
        store.set_info(state="running", changes=[{"iteration": 3, "strength": 0.2}])
        assert told(watcher) == [("changed", "run", 3, None), ("state", "run", 3, "running")]
        store.database.execute("INSERT INTO evaluations VALUES (3, 0, 'a cat', 1, NULL)")
        store.database.commit()
        assert told(watcher) == [("evaluated", "run", 3, None)]
        store(Finished(3, Ending("stopped")))
        assert told(watcher) == [("state", "run", 3, "stopped")]
    assert told(watcher) == [("finished", "run", 3, "stopped")]
    assert told(watcher, 2 * ALL) == []


def test_a_run_that_dies_is_told_as_interrupted(tmp_path, watcher):
    (tmp_path / "run").mkdir()
    with exclusive(str((tmp_path / "run").absolute()), "busy"), metrics.open_store(tmp_path / "run") as store:
        store(Started(0, 5))
        store(done(0))
        told(watcher, ALL)
    assert told(watcher) == [("finished", "run", 1, "interrupted")]


def test_a_run_that_goes_on_is_told_as_started_where_it_begins(tmp_path, watcher):
    with metrics.open_store(tmp_path / "run") as store:
        for iteration in range(4):
            store(done(iteration))
        told(watcher, ALL)
        with exclusive(str((tmp_path / "run").absolute()), "busy"):
            store.rewind(2)
            store(Started(2, 5))
            assert ("started", "run", 2, None) in told(watcher, ALL)


def test_of_many_iterations_at_once_the_last_are_told(tmp_path, watcher):
    with metrics.open_store(tmp_path / "run") as store:
        store(done(0))
        told(watcher, ALL)
        for iteration in range(1, 2 * BURST):
            store(done(iteration))
        assert [n for kind, _, n, _ in told(watcher, ALL)] == list(range(BURST, 2 * BURST))


def test_what_was_there_before_and_what_cannot_be_read_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.store.database.READING", 0.01)
    write(tmp_path / "run", Run(iterations=3))
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / DATABASE).write_bytes(b"garbage" * 1000)
    with exclusive(str((tmp_path / "run").absolute()), "busy"):
        assert told(Watcher(lambda: tmp_path)) == []
    watcher = Watcher(lambda: tmp_path)
    assert told(watcher, 2 * ALL) == []
    owner = sqlite3.connect(tmp_path / "run" / DATABASE)
    owner.executescript("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE")
    assert told(watcher, ALL) == []
    owner.close()
    assert told(watcher, ALL) == []


def test_a_slow_listener_loses_the_oldest_messages_and_holds_up_nobody():
    hub = Hub()

    async def main():
        with hub.subscribed() as slow, hub.subscribed() as fast:
            seen = []
            for n in range(1000):
                hub.publish({"n": n})
                seen.append(fast.get_nowait()["n"])
            assert seen == list(range(1000))
            assert [slow.get_nowait()["n"] for _ in range(slow.qsize())] == list(range(1000 - PENDING, 1000))
        assert not hub.queues

    asyncio.run(main())


def test_a_training_tells_what_a_watcher_would(tmp_path):
    sent = []
    announcer = Announcer("run", sent.append)
    change = Change(3, learning_rate=1e-4)
    events = [
        Started(2, 5), done(2), Skipped(2, "why"), Saved(3, "lora"), Waiting(3, "the server"), Resumed(3, 1.0),
        Paused(3), Unpaused(3, 1.0), Changed(change, (change,)), Evaluated(3, [], [], {}, torch.zeros(0, 3, 8, 8)),
        Finished(4, Ending("failed", "why")),
    ]  # fmt: skip
    for event in events:
        announcer(event)
    assert all(m["version"] == 1 and m["run"] == "run" for m in sent)
    assert [(m["type"], m["iteration"], m.get("state")) for m in sent] == [
        ("started", 2, None), ("iteration", 2, None), ("saved", 3, None), ("state", 3, "waiting: the server"),
        ("state", 3, "running"), ("state", 3, "paused"), ("state", 3, "running"), ("changed", 3, None),
        ("evaluated", 3, None),
    ]  # fmt: skip
    assert sent[1]["metrics"] == {"loss": 1.0, "grad_norm": None}
    announcer.close()  # the end is told when the run has let its folder go
    assert sent[-1] == {"version": 1, "type": "finished", "run": "run", "iteration": 4, "state": "failed: why"}
    json.dumps(sent, allow_nan=False)
    nothing = Announcer("run", pytest.fail)
    nothing.close()  # a training that never began


@pytest.fixture
def board(tmp_path, monkeypatch):
    write(tmp_path / "run", Run(iterations=3))
    looks, look = [], Watcher.look
    monkeypatch.setattr(Watcher, "look", lambda watcher: (look(watcher), looks.append(watcher))[0])
    app = make_app(lambda: tmp_path)
    with running(app) as served:
        served.hub, served.looks = app[HUB], looks
        yield served


async def until_looked(board) -> None:
    """What happens from now on is told: the watcher knows what was there before."""
    await asyncio.to_thread(until, lambda: board.looks)


def address(board, scheme="ws"):
    return f"{scheme}://127.0.0.1:{board.port}{PREFIX}/events"


def test_a_browser_hears_of_an_iteration_within_a_second(board, tmp_path):
    async def main():
        async with aiohttp.ClientSession() as session, session.ws_connect(address(board)) as socket:
            await until_looked(board)
            (tmp_path / "live").mkdir()
            with exclusive(str((tmp_path / "live").absolute()), "busy"), metrics.open_store(tmp_path / "live") as store:
                store(Started(0, 5))
                started = await asyncio.wait_for(socket.receive_json(), GUARD)
                assert started == {"version": 1, "type": "started", "run": "live", "iteration": 0}
                store(done(0))
                found = await asyncio.wait_for(socket.receive_json(), GUARD)
        assert found == {
            "version": 1, "type": "iteration", "run": "live", "iteration": 0, "metrics": {"loss": 0, "grad_norm": None}
        }  # fmt: skip

    asyncio.run(main())


def test_a_client_that_never_reads_costs_a_bounded_queue(board):
    hub = board.hub

    async def main():
        reader, writer = await asyncio.open_connection("127.0.0.1", board.port, limit=1024)
        writer.write(
            f"GET {PREFIX}/events HTTP/1.1\r\nHost: 127.0.0.1:{board.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert b"101" in await reader.readline()
        async with aiohttp.ClientSession() as session, session.ws_connect(address(board)) as socket:
            while len(hub.queues) < 2:
                await asyncio.sleep(0.01)
            await until_looked(board)
            for n in range(3000):
                board.loop.call_soon_threadsafe(hub.publish, {"n": n, "padding": "x" * 5000})  # 15 MB in all
                if n % 50 == 0:
                    await asyncio.sleep(0.005)
            last = -1
            while last < 2999:
                last = json.loads((await asyncio.wait_for(socket.receive(), GUARD)).data)["n"]
            sizes = sorted(queue.qsize() for queue in hub.queues)
        assert sizes == [0, PENDING]
        writer.close()
        await asyncio.to_thread(until, lambda: not hub.queues, lambda: "clients that have left are still there")

    asyncio.run(main())


def test_only_websockets_and_only_so_many_listen(board, monkeypatch):
    answer = board.get("/events")
    assert (answer.status, answer.json) == (426, {"error": "this is a websocket"})
    monkeypatch.setattr("trainer.board.events.CLIENTS", 1)

    async def main():
        async with aiohttp.ClientSession() as session, session.ws_connect(address(board)) as first:
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(address(board))
            assert error.value.status == 503
            await first.send_str("x" * 5000)  # nobody listens to clients: too long a message ends the connection
            assert (await asyncio.wait_for(first.receive(), GUARD)).type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            )

    asyncio.run(main())


def test_a_foreign_page_cannot_listen(board):
    async def main():
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(address(board), origin="http://evil.example")
            assert error.value.status == 403
            own = f"http://127.0.0.1:{board.port}"
            await (await session.ws_connect(address(board), origin=own)).close()

    asyncio.run(main())
