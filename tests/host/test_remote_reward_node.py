"""The Remote Reward node in a real ComfyUI: it trains, waits for its server, and is cancelled while it waits."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import graphs
import pytest
from comfy_server import ExecutionError, ExecutionInterrupted
from patience import GUARD, until

from trainer.training.checkpoint import load as load_checkpoint

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def start(port, tmp_path):
    """Starts the reward server."""
    config = tmp_path / "rewards.toml"
    config.write_text("[[rewards]]\nkind = 'colourfulness'\n", "utf-8")
    line = [sys.executable, "-m", "trainer", "reward-server", "--config", str(config), "--port", str(port)]
    started = []
    yield lambda: started.append(subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT))
    for process in started:
        process.terminate()
        process.wait(GUARD)


def remote(graph: dict, port: int, **inputs) -> dict:
    values = {"url": f"http://127.0.0.1:{port}", "reward_name": "", "timeout": float(GUARD), "token_env": "", **inputs}
    return graph | {"4": graphs.node("RemoteReward", **values)}


def until_waiting(server, seen: int) -> None:
    until(lambda: "saved, and waiting: the server" in server.log()[seen:], lambda: server.log()[seen:])


def test_a_training_waits_for_its_server_is_cancelled_and_goes_on(server, port, start):
    graph = remote(graphs.train(name="remote", iterations=3, resume=True), port)
    prompt, seen = server.queue(graph), len(server.log())
    until_waiting(server, seen)
    server.interrupt()
    with pytest.raises(ExecutionInterrupted, match="NeighborGRPOTrain"):
        server.wait(prompt)
    folder = server.base / "output/neighbor_grpo/remote"
    assert load_checkpoint(folder / "checkpoint").iteration == 0

    prompt, seen = server.queue(graph), len(server.log())
    until_waiting(server, seen)
    start()
    assert server.wait(prompt)["outputs"]["5"]["text"] == [f"complete: {folder}"]
    assert "went on after" in server.log()[seen:]
    assert load_checkpoint(folder / "checkpoint").iteration == 3


def test_score_images_says_that_the_server_is_gone_and_can_be_cancelled(server, port):
    graph = remote(graphs.steps(rank=12), port)
    with pytest.raises(ExecutionError, match=f"http://127.0.0.1:{port} cannot be reached"):
        server.wait(server.queue(graph))
    with socket.create_server(("127.0.0.1", port)) as silent:  # takes requests and never answers
        silent.settimeout(GUARD)
        graph["5"]["inputs"]["steps"] = 3
        graph["4"]["inputs"]["timeout"] = 3.0 * GUARD  # longer than this test waits for the cancel
        prompt = server.queue(graph)
        connection, _ = silent.accept()
        with connection:
            server.interrupt()
            with pytest.raises(ExecutionInterrupted, match="NeighborGRPOScoreImages"):
                server.wait(prompt)


def test_a_wrong_address_is_refused_before_the_graph_runs(server, port):
    with pytest.raises(ExecutionError, match=r"url 'localhost' is no address of a server: write http://host:port"):
        server.queue(remote(graphs.train(name="wrong"), port, url="localhost"))
    with pytest.raises(ExecutionError, match="this environment variable is not set: put the server's token there"):
        server.wait(server.queue(remote(graphs.train(name="wrong"), port, token_env="NOT_SET")))
