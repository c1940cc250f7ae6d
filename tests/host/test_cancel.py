"""Cancel at random moments: the server stays healthy, nothing is lost, and the run goes on as if nothing had been."""

import random
import re
import sqlite3
import time
from pathlib import Path

import graphs
import pytest
import torch
from comfy_server import ExecutionInterrupted
from patience import until
from progress import heard
from safetensors.torch import load_file

from trainer.training.checkpoint import load as load_checkpoint

CANCELS, ITERATIONS = 6, 24
SETTINGS = {"updates_per_rollout": 2, "ema_decay": 0.5, "warmup": 5}


def graph(name: str, *, resume: bool, iterations: int = ITERATIONS) -> dict:
    train = graphs.train(name=name, resume=resume, iterations=iterations, save_every=7)
    train["6"]["inputs"]["overwrite"] = True
    return graphs.with_settings(train, **SETTINGS)


def start(server, prompt: dict) -> str:
    """Queue it and wait until the Train node has done an iteration: ComfyUI forgets a cancel before it begins."""
    seen = len(server.log())
    prompt_id = server.queue(prompt)
    while not re.search(r"Neighbor GRPO: \d+/", server.log()[seen:]):
        assert not server.get(f"/history/{prompt_id}"), server.log()[seen:]
        time.sleep(0.02)
    return prompt_id


def seconds_an_iteration(run: Path) -> float:
    with sqlite3.connect(run / "run.sqlite") as database:
        return database.execute("SELECT avg(value) FROM metrics WHERE name = 'seconds'").fetchone()[0]


def test_a_run_cancelled_many_times_equals_the_uninterrupted_one(server):
    server.wait(server.queue(graph("whole", resume=False)))
    folder = server.base / "output/neighbor_grpo"
    iteration = seconds_an_iteration(folder / "whole")
    moments, cancelled, reached = random.Random(3), 0, []
    first = graph("cut", resume=True)
    for _ in range(CANCELS):
        done = reached[-1] if reached else 0
        prompt = start(server, first)
        time.sleep(moments.uniform(0, 1) * iteration)
        asked = time.monotonic()
        server.interrupt()
        with pytest.raises(ExecutionInterrupted, match="NeighborGRPOTrain"):
            server.wait(prompt)
        print(f"cancelled within {time.monotonic() - asked:.2f} s after iteration {done}")
        cancelled += 1
        reached.append(load_checkpoint(folder / "cut/checkpoint").iteration)
        assert reached[-1] >= done + 1  # what was finished is kept
        assert server.get("/system_stats")
        assert not server.get("/queue")["queue_running"]
    assert cancelled == CANCELS
    assert reached[-1] < ITERATIONS, "the run was over before it could be cancelled so often"

    server.wait(server.queue(first))
    whole, cut = (load_file(server.base / f"models/loras/{name}.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    server.wait(server.queue(graph("afterwards", resume=False, iterations=1)))  # another run in the same session


def test_a_rollout_and_a_step_are_cancelled_too(server):
    looking = graphs.steps(rank=11)
    looking["5"]["inputs"] |= {"steps": 100, "micro_batch": 1}
    with heard(server) as progress:
        prompt = server.queue(looking)
        until(lambda: progress.steps.get("5", 0) > 0, server.log)
    server.interrupt()
    with pytest.raises(ExecutionInterrupted, match="NeighborGRPORollout"):
        server.wait(prompt)
    looking["5"]["inputs"] |= {"steps": 2, "micro_batch": 12}
    server.wait(server.queue(looking))
