"""The nodes in a real ComfyUI on the card made of the CPU, which refuses tensors of two devices and counts memory."""

import shutil
import sqlite3

import graphs
import pytest
import torch
from comfy_server import ExecutionInterrupted
from mapped_files import MAPS, mapped
from queued import fails, run
from safetensors.torch import load_file

from trainer import tiny
from trainer.lock import exclusive

TOLERANCE = 1e-4  # of the LoRA's movement; it was 0 wherever this was tried, as the card computes on the same CPU


@pytest.fixture(scope="module")
def server(server_on_card):
    return server_on_card


def training(name: str, *, device: str = "auto", precision: str = "float32", memory: str = "bf16", **changes) -> dict:
    small = {"iterations": 1, "group_size": 4, "steps": 2, "prompts_per_iteration": 1}
    graph = graphs.train(name=name, precision=precision, **small | changes)
    graph["1"]["inputs"] |= {"device": device, "memory": memory}
    graph["6"]["inputs"]["overwrite"] = True
    return graphs.with_settings(graph, updates_per_rollout=2, kl_weight=0.1, ema_decay=0.5)


def from_picture(graph: dict, *, denoise: float = 0.6, mask: bool = False, **encode) -> dict:
    """The graph's Train begins from a picture that the policy's own VAE encodes."""
    graph |= {
        "20": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "21": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "22": graphs.node("EncodeImage", policy=["1", 0], neighborhood=["3", 0], images=["20", 0], **encode),
    }
    if mask:
        graph["22"]["inputs"]["mask"] = ["21", 0]
    graph["5"]["inputs"] |= {"latent": ["22", 0], "denoise": denoise}
    return graph


def by_comfyuis_vae(graph: dict) -> dict:
    """Encoded and decoded by ComfyUI's own VAE, on ComfyUI's device."""
    graph |= {
        "20": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "23": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "24": {"class_type": "VAEEncode", "inputs": {"pixels": ["20", 0], "vae": ["23", 0]}},
    }
    graph["5"]["inputs"] |= {"latent": ["24", 0], "denoise": 0.6, "vae": ["23", 0]}
    return graph


def looked_at(graph: dict) -> dict:
    """With evaluation prompts, a held-out reward, and rewards that wait on the host."""
    graph["42"] = graphs.node("ColourfulnessReward")
    off = {f"{what}_{n}": value for n in range(1, 5) for what, value in (("weight", 1.0), ("held_out", False))}
    combined = off | {"reward_1": ["4", 0], "reward_2": ["42", 0], "held_out_2": True}
    graph["41"] = graphs.node("CombineRewards", **combined)
    graph["40"] = graphs.node("PromptSet", policy=["1", 0], text="panda on a pink background", file="")
    graph["5"]["inputs"] |= {"reward": ["41", 0], "offload_rewards": True}
    graph["5"]["inputs"] |= {"evaluation": ["40", 0], "evaluate_every": 1}
    return graph


def offloaded(graph: dict) -> dict:
    graph["1"]["inputs"] |= {"offload": 1.0}
    return graph


KINDS = {
    "text": lambda graph: graph,
    "inpainting": lambda graph: from_picture(graph, denoise=1.0, mask=True),
    "reference": lambda graph: from_picture(graph, denoise=1.0, reference=True),
    "ComfyUI's VAE": by_comfyuis_vae,
    "evaluation": looked_at,
    "offload": offloaded,
}


def movement(server, name: str) -> dict[str, torch.Tensor]:
    tensors = load_file(server.base / f"models/loras/{name}.safetensors")
    return {key: tensor for key, tensor in tensors.items() if "lora_B" in key}  # which begins as 0


def memory_counted(server, name: str) -> float | None:
    """The largest peak on the device, bytes, in a run's metrics."""
    with sqlite3.connect(server.base / f"output/neighbor_grpo/{name}/run.sqlite") as database:
        return database.execute("SELECT max(value) FROM metrics WHERE name = 'memory/device'").fetchone()[0]


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    length = sum(tensor.square().sum() for tensor in expected.values()).sqrt()
    apart = sum((found[key] - expected[key]).square().sum() for key in expected).sqrt()
    print(f"{apart / length:.1e} of the LoRA's movement")
    assert length > 0
    assert apart < TOLERANCE * length


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
    graph = by_comfyuis_vae(training("single", precision="auto", memory="auto", model="tiny_flux.safetensors"))
    clip = {"clip_name1": "tiny_clip.safetensors", "clip_name2": "tiny_t5.safetensors", "type": "flux"}
    text = graph["2"]["inputs"]["text"] = "spider on a red background"
    graph |= {
        "30a": {"class_type": "DualCLIPLoader", "inputs": clip},
        "31a": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["30a", 0]}},
    }
    graph["2"]["inputs"]["conditioning"] = ["31a", 0]
    assert run(server, graph)["5"].startswith("complete")
    assert all(tensor.isfinite().all() for tensor in movement(server, "single").values())


def stepping(*, device: str = "auto", rank: int = 5) -> dict:
    graph = graphs.steps(precision="float32", rank=rank)
    graph["1"]["inputs"] |= {"device": device, "memory": "bf16"}
    graph["8"] = graphs.node("SaveLora", lora=["7", 0], name=f"step-{device}", overwrite=True)
    return graph


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


def test_after_a_training_the_card_holds_the_policy_and_after_another_model_that_one(server, tmp_path):
    one, other = (str(shutil.copytree(tiny.FLUX, tmp_path / name)) for name in ("one", "other"))
    graph = stepping(rank=4)
    graph["1"]["inputs"]["folder"] = one
    run(server, graph)
    level = server.emptied()
    assert level > 0
    for n in range(2):
        run(server, looked_at(training(f"level-{n}", rank=4, folder=one)))
        assert server.emptied() == level
    graph["1"]["inputs"]["folder"] = other
    run(server, graph)
    assert server.emptied() == level  # as large as the one whose place it took


def test_a_node_frees_the_models_that_comfyui_has_on_the_policys_device_and_on_its_own(server):
    for device in ("cpu", "card:0"):
        graph = stepping(device="cpu" if device == "cpu" else "auto", rank=3)
        graph["9"] = {"class_type": "CardLoadModel", "inputs": {"scores": ["6", 0], "device": device}}
        graph["7"]["inputs"]["scores"] = ["9", 0]
        run(server, graph)
        assert server.card()["loaded"] == [], "Step left one there"
        del graph["7"], graph["8"]
        graph["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["9", 0]}}
        graph["9"]["inputs"]["again"] = device
        run(server, graph)
        assert server.card()["loaded"] == [device]
        looking = {name: node for name, node in stepping(rank=3).items() if name in "1235"}
        looking["1"]["inputs"]["device"] = "cpu" if device == "cpu" else "auto"
        looking["3"]["inputs"]["seed"] = 7
        run(server, looking | {"11": {"class_type": "PreviewImage", "inputs": {"images": ["5", 1]}}})
        assert device not in server.card()["loaded"], "Rollout left one there"


def test_memory_that_runs_out_is_one_sentence_and_the_next_run_works(server):
    run(server, training("full", rank=4))
    server.post("/card/limit", {"more": 2**20})
    message = fails(server, training("fuller", rank=4))  # everything is loaded by now
    assert "out of memory" in message
    assert ": set " in message
    server.post("/card/limit", {"total": 2**33})
    assert run(server, training("roomy", rank=4))["5"].startswith("complete")


MIB = 2**20
# a training of the default sizes on the embedded model needs 214 MiB with a micro-batch of 1, and 200 in fp8
TOTAL = 412 * MIB
TOLD = {  # bytes to reserve, state -> bytes of the policy's weights, which are 22 million in float32
    "nothing": (0, "NORMAL_VRAM", 20_000_000, 25_000_000),
    "--reserve-vram": (TOTAL - 206 * MIB, "NORMAL_VRAM", 6_000_000, 13_000_000),
    "--lowvram": (0, "LOW_VRAM", 6_000_000, 13_000_000),
    "--novram": (0, "NO_VRAM", 1_000_000, 6_000_000),
}


@pytest.mark.parametrize("told", TOLD)
def test_auto_leaves_free_what_comfyui_was_told_to_leave_free(server, tmp_path, told):
    reserve, state, least, most = TOLD[told]
    server.emptied()
    server.post("/card/limit", {"total": TOTAL})
    server.post("/card/told", {"reserve": reserve, "state": state})
    try:
        graph = {name: node for name, node in graphs.parts(precision="float32").items() if name in "12"}
        graph["1"]["inputs"] |= {"folder": str(shutil.copytree(tiny.FLUX, tmp_path / "flux")), "memory": "auto"}
        run(server, graph | {"9": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}})
        assert least < server.emptied() < most
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
