"""Whose the card is between a training and a drawing: an idle policy is ComfyUI's to send away, and comes back."""

import shutil

import graphs
import pytest
from card_runs import MIB, assert_alike, drawing, looked_at, movement, stepping, training
from patience import until
from queued import fails, run

from trainer import tiny

FLUX = "diffusers.models.transformers.transformer_flux.FluxTransformer2DModel"
ROOMY, NARROW = 2**33, 2**29  # bytes of the card; ComfyUI wants 0.8 GiB and more beside the model that it loads


@pytest.fixture(scope="module")
def server(server_on_card):
    return server_on_card


@pytest.fixture(autouse=True)
def roomy_again(server):
    yield
    server.post("/card/limit", {"total": ROOMY})


def policies(server) -> int:
    """Base models of ours that are alive, on the card or in host memory."""
    return server.get(f"/probe/objects/{FLUX}")["count"]


def unload(server) -> None:
    """Press "Unload models". Results stay."""
    server.post("/free", {"unload_models": True})
    server.pause()


def test_after_a_training_the_card_is_empty_whatever_was_trained(server, tmp_path):
    level = server.emptied()
    one, other = (str(shutil.copytree(tiny.FLUX, tmp_path / name)) for name in ("one", "other"))
    for n, folder in enumerate((one, one, other)):
        run(server, looked_at(training(f"level-{n}", rank=4, folder=folder)))
        server.until_left(level)
        assert "FluxPolicy" not in str(server.card()["loaded"])


def test_between_steps_the_policy_waits_on_the_card_and_a_drawing_without_room_sends_it_away(server):
    level = server.emptied()
    for device in ("cpu", "cpu", "auto"):
        run(server, stepping(device=device, rank=7))
    assert "FluxPolicy on card:0" in server.card()["loaded"]
    assert server.live() > level + 4 * MIB
    server.post("/card/limit", {"total": NARROW})
    server.wait(server.queue(drawing(seed=1)))
    assert "FluxPolicy on card:0" not in server.card()["loaded"]
    server.post("/card/limit", {"total": ROOMY})
    unload(server)
    server.until_left(level)
    run(server, stepping(rank=7))
    assert_alike(movement(server, "step-auto"), movement(server, "step-cpu"))


def test_unload_models_reaches_an_idle_policy_with_its_optimiser_and_average_and_it_goes_on(server):
    level = server.emptied()
    graph = graphs.with_settings(stepping(rank=9), ema_decay=0.5)
    for n in (1, 2):
        assert run(server, graph)["7"].split()[:2] == ["step", str(n)]
        assert server.live() > level + 4 * MIB
        unload(server)
        server.until_left(level)


def test_a_policy_that_never_moved_goes_with_its_graph_and_one_that_moved_stays(server, tmp_path):
    folder = str(shutil.copytree(tiny.FLUX, tmp_path / "flux"))  # another base model: those that moved so far are gone
    run(server, training("gone", rank=4, folder=folder))
    assert policies(server) == 1
    server.forget()
    until(lambda: policies(server) == 0, lambda: policies(server))
    graph = stepping(rank=4)
    graph["1"]["inputs"]["folder"] = folder
    run(server, graph)
    server.forget()
    assert policies(server) == 1
    assert run(server, graph)["7"].split()[:2] == ["step", "2"]


def test_loras_that_no_graph_has_any_more_take_no_memory(server, tmp_path):
    load = graphs.parts(precision="float32", folder=str(shutil.copytree(tiny.FLUX, tmp_path / "flux")))["1"]
    left = []
    for seed in range(3):
        load["inputs"]["seed"] = seed
        run(server, {"1": load, "9": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}})
        left.append(server.live())
    assert len(set(left)) == 1, left


def test_no_training_and_no_drawing_in_turn_hold_two_models_at_once(server):
    """Template 3, template 4, and again, in one ComfyUI: the most on the card is what one of them needs."""
    alone = []
    for graph in (training("alone", rank=4, memory="bf16"), drawing(seed=2)):
        server.emptied()
        server.post("/card/peak", {})
        server.wait(server.queue(graph))
        alone.append(server.card()["peak"])
    server.emptied()
    server.post("/card/peak", {})
    for graph in (training("first", rank=4), drawing(seed=3), training("second", rank=4), drawing(seed=4)):
        server.wait(server.queue(graph))
    assert server.card()["peak"] <= 1.01 * max(alone)


def test_a_policy_that_finds_no_room_to_come_back_is_one_sentence_and_comes_when_there_is(server):
    run(server, stepping(rank=3))
    unload(server)
    graph = stepping(rank=3)
    graph["3"]["inputs"]["seed"] = 8
    server.post("/card/limit", {"more": 2 * MIB})
    message = fails(server, graph)
    assert "out of memory" in message
    assert ": set " in message
    server.post("/card/limit", {"total": ROOMY})
    scored = {name: graph[name] for name in "123456"}
    run(server, scored | {"11": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}}})
    server.post("/free", {"unload_models": True})  # and no other graph, which would forget this one's results
    server.until(lambda state: not state["loaded"], "its leaving")
    server.post("/card/limit", {"more": 2 * MIB})
    message = fails(server, graph)
    assert "NeighborGRPOStep" in message  # what Rollout drew is there already
    assert ": set " in message
    server.post("/card/limit", {"total": ROOMY})
    assert run(server, graph)["7"].split()[:2] == ["step", "2"]


@pytest.mark.parametrize("device", ["cpu", "card:0"])
def test_a_node_frees_the_models_that_comfyui_has_on_the_policys_device_and_on_its_own(server, device):
    graph = stepping(device="cpu" if device == "cpu" else "auto", rank=3)
    graph["9"] = {"class_type": "CardLoadModel", "inputs": {"scores": ["6", 0], "device": device}}
    graph["7"]["inputs"]["scores"] = ["9", 0]
    run(server, graph)
    assert "Linear" not in str(server.card()["loaded"]), "Step left one there"
    del graph["7"], graph["8"]
    graph["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["9", 0]}}
    graph["9"]["inputs"]["again"] = device
    run(server, graph)
    assert f"Linear on {device}" in server.card()["loaded"]
    looking = {name: node for name, node in stepping(rank=3).items() if name in "1235"}
    looking["1"]["inputs"]["device"] = "cpu" if device == "cpu" else "auto"
    looking["3"]["inputs"]["seed"] = 7
    run(server, looking | {"11": {"class_type": "PreviewImage", "inputs": {"images": ["5", 1]}}})
    assert "Linear" not in str(server.card()["loaded"]), "Rollout left one there"
