"""The nodes in a real ComfyUI on the card made of the CPU, which refuses tensors of two devices and counts memory."""

import re
import shutil
import sqlite3

import graphs
import pytest
from card_runs import (
    MIB,
    assert_alike,
    by_comfyuis_vae,
    from_picture,
    looked_at,
    movement,
    of_files,
    offloaded,
    stepping,
    training,
)
from comfy_server import ExecutionInterrupted
from mapped_files import MAPS, mapped
from queued import fails, run

from trainer import tiny
from trainer.lock import exclusive


@pytest.fixture(scope="module")
def server(server_on_card):
    return server_on_card


KINDS = {
    "text": lambda graph: graph,
    "inpainting": lambda graph: from_picture(graph, denoise=1.0, mask=True),
    "reference": lambda graph: from_picture(graph, denoise=1.0, reference=True),
    "ComfyUI's VAE": by_comfyuis_vae,
    "evaluation": looked_at,
    "offload": offloaded,
}


def memory_counted(server, name: str) -> float | None:
    """The largest peak on the device, bytes, in a run's metrics."""
    with sqlite3.connect(server.base / f"output/neighbor_grpo/{name}/run.sqlite") as database:
        return database.execute("SELECT max(value) FROM metrics WHERE name = 'memory/device'").fetchone()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_on_the_card_is_the_one_on_the_cpu(server, kind):
    for device in ("cpu", "auto"):
        run(server, KINDS[kind](training(f"{kind}-{device}", device=device)))
    assert_alike(movement(server, f"{kind}-auto"), movement(server, f"{kind}-cpu"))
    assert memory_counted(server, f"{kind}-auto") > 2**20
    assert memory_counted(server, f"{kind}-cpu") is None  # it was elsewhere


def test_fill_on_the_card_is_fill_on_the_cpu(server, fill):
    for device in ("cpu", "auto"):
        run(server, from_picture(training(f"fill-{device}", device=device, folder=fill), denoise=1.0, mask=True))
    assert_alike(movement(server, "fill-auto"), movement(server, "fill-cpu"))


def test_a_single_file_with_comfyuis_own_encoders_trains_on_the_card(server):
    """Everything is left to ComfyUI: precision, memory, device."""
    graph = by_comfyuis_vae(of_files(training("single", precision="auto", memory="auto")))
    assert run(server, graph)["5"].startswith("complete")
    assert all(tensor.isfinite().all() for tensor in movement(server, "single").values())


def test_steps_on_the_card_are_those_on_the_cpu(server):
    shown = {}
    for device in ("cpu", "auto"):
        for _ in range(2):
            shown[device] = run(server, stepping(device=device))["7"].split()
    assert shown["auto"][:2] == ["step", "2"]
    numbers = {device: [float(word) for word in words[1::2]] for device, words in shown.items()}
    assert numbers["auto"] == pytest.approx(numbers["cpu"], rel=1e-3, abs=1e-5)
    assert_alike(movement(server, "step-auto"), movement(server, "step-cpu"))


# ---- cancelling


def cancelled(server, graph: dict, node: str) -> None:
    prompt = server.queue(graph)
    server.computing(node)
    server.interrupt()
    with pytest.raises(ExecutionInterrupted, match=graph[node]["class_type"]):
        server.wait(prompt)


def test_cancel_ends_each_node_and_gives_back_what_it_had_taken(server):
    short = stepping(rank=6)
    run(server, short)
    level = server.emptied()
    train = training("cancelled", rank=6, iterations=200)
    cancelled(server, train, "5")
    assert server.emptied() == level
    rollout = stepping(rank=6)
    rollout["5"]["inputs"] |= {"steps": 100, "micro_batch": 1}
    cancelled(server, rollout, "5")
    assert server.emptied() == level
    step = graphs.with_settings(stepping(rank=6), updates_per_rollout=32)
    cancelled(server, step, "7")
    assert server.emptied() == level
    assert run(server, short)["7"].split()[:2] == ["step", "2"]  # the cancelled one was undone
    train["5"]["inputs"] |= {"iterations": 2, "run_name": "goes-on"}
    assert run(server, train)["5"].startswith("complete")


# ---- memory


def test_memory_that_runs_out_is_one_sentence_and_the_next_run_works(server):
    run(server, training("full", rank=4))
    server.post("/card/limit", {"more": 2**20})
    message = fails(server, training("fuller", rank=4))  # everything is loaded by now
    assert "out of memory" in message
    assert ": set " in message
    server.post("/card/limit", {"total": 2**33})
    assert run(server, training("roomy", rank=4))["5"].startswith("complete")


# a training of the default sizes on the embedded model needs 235 MiB with a micro-batch of 1, and 225 in fp8
TOTAL = 490 * MIB
# bytes to reserve, state -> bytes of the policy's weights: 16 of 22 million in float32, as the norms' wait elsewhere
TOLD = {
    "nothing": (0, "NORMAL_VRAM", 15_000_000, 20_000_000),
    "--reserve-vram": (TOTAL - 245 * MIB, "NORMAL_VRAM", 4_500_000, 8_000_000),
    "--lowvram": (0, "LOW_VRAM", 4_500_000, 8_000_000),
    "--novram": (0, "NO_VRAM", 1_000_000, 4_000_000),
}


@pytest.mark.parametrize("told", TOLD)
def test_auto_leaves_free_what_comfyui_was_told_to_leave_free(server, tmp_path, told):
    reserve, state, least, most = TOLD[told]
    server.emptied()
    server.post("/card/limit", {"total": TOTAL})
    server.post("/card/told", {"reserve": reserve, "state": state})
    try:
        graph = {"1": graphs.parts(precision="float32")["1"]}
        graph["1"]["inputs"] |= {"folder": str(shutil.copytree(tiny.FLUX, tmp_path / "flux")), "memory": "auto"}
        run(server, graph | {"9": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}})
        assert least < server.live() < most
    finally:
        server.post("/card/limit", {"total": 2**33})
        server.post("/card/told", {"reserve": 0, "state": "DISABLED"})


DRAWN = re.compile(r"run.rollout_batch = 'auto': (\d+) candidates at once")


def drawn_at_once(server, graph, total: int) -> list[str]:
    """What the log says that a training on a card of `total` bytes draws at once."""
    seen = len(server.log())
    server.post("/card/limit", {"total": total})
    assert run(server, graph)["5"].startswith("complete")
    return DRAWN.findall(server.log()[seen:])


def test_train_draws_as_many_at_once_as_there_is_room_for_beside_its_policy(server):
    level = server.emptied()
    graph = training("at-once", group_size=32, micro_batch=1, rank=3)
    server.post("/card/told", {"reserve": 0, "state": "NORMAL_VRAM"})
    try:
        assert drawn_at_once(server, graph, 2**33) == ["32"]
        graph["5"]["inputs"]["iterations"] = 2
        (fewer,) = drawn_at_once(server, graph, level + 38 * MIB)
        assert fewer in ("8", "16")
        graph["5"]["inputs"]["rollout_batch"] = 5
        assert drawn_at_once(server, graph, 2**33) == []
    finally:
        server.post("/card/limit", {"total": 2**33})
        server.post("/card/told", {"reserve": 0, "state": "DISABLED"})


def test_beside_a_training_that_holds_the_card_nothing_of_ours_begins(server, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(server.base))  # where this server keeps its locks
    graph = stepping(rank=2)
    graph["3"]["inputs"]["seed"] = 11
    with exclusive("device card:0", "ours"):  # as training_on("card:0") in a process that has a card
        assert "another training is running on card:0: wait for it, or cancel it" in fails(server, graph)
    assert run(server, graph)["7"].split()[:2] == ["step", "1"]


@pytest.mark.skipif(not MAPS.exists(), reason="what is mapped is read from /proc")
def test_a_resumed_run_and_its_lora_in_the_graph_map_no_file(server):
    run(server, training("resumed", iterations=1))
    assert run(server, training("resumed", iterations=3, resume=True))["5"].startswith("complete")
    folder = server.base / "output/neighbor_grpo/resumed"
    with sqlite3.connect(folder / "run.sqlite") as database:
        assert database.execute("SELECT max(iteration) FROM metrics").fetchone() == (2,)
    of_database = [line for line in mapped(folder, server.maps) if "run.sqlite" in line]
    assert mapped(folder, server.maps) == of_database
    assert mapped(server.base / "models/loras", server.maps) == []
