"""The CLIP rewards' nodes in a real ComfyUI: what they find, what they say when it is missing, what a run remembers."""

import itertools
import json
import sqlite3
from pathlib import Path

import graphs
import pytest
import torch
from comfy_server import ExecutionError
from PIL import Image
from safetensors.torch import save_file
from small_clip import small_clip

from trainer.rewards import build
from trainer.rewards.clip_files import configuration, transformers_names


def scored(server, reward: dict) -> dict[str, list[float]]:
    """Scores of one rollout by the reward node (or nodes; the one called 4 is used), by the names in the table."""
    graph = graphs.steps() | reward
    table = server.wait(server.queue(graph | {"8": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}}}))
    head, *rows = table["outputs"]["8"]["text"][0].splitlines()
    names = head.split()[1:-1]
    return {name: [float(row.split()[1 + n]) for row in rows] for n, name in enumerate(names)}


@pytest.fixture(scope="module")
def weights(server) -> Path:
    """A small CLIP under every name that the nodes look for."""
    folder = server.base / "models/rewards"
    model = small_clip()
    tensors = {name: tensor.contiguous() for name, tensor in transformers_names(model.state_dict())}

    def write() -> Path:
        from transformers import CLIPConfig, CLIPModel

        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": model.state_dict()}, folder / "HPS_v2.1_compressed.pt")
        save_file(tensors, folder / "clip-vit-large-patch14.safetensors")
        pick = CLIPModel(CLIPConfig(**configuration(tensors, "gelu")))
        pick.load_state_dict(tensors)
        pick.save_pretrained(folder / "PickScore_v1")
        widths = [48, 1024, 128, 64, 16, 1]
        layers = {}
        for n, (before, after) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
            layers[f"layers.{n}.weight"] = torch.randn(after, before) / before**0.5
            layers[f"layers.{n}.bias"] = torch.randn(after)
        torch.save(layers, folder / "sac+logos+ava1-l14-linearMSE.pth")
        return folder

    return write


NODES = {
    "hpsv2.1": ("HPSv2Reward", {}, "HPS_v2.1_compressed.pt"),
    "pickscore": ("PickScoreReward", {}, "PickScore_v1"),
    "clipscore": ("CLIPScoreReward", {}, "clip-vit-large-patch14"),
    "aesthetic": ("AestheticReward", {"head": "auto"}, "sac+logos+ava1-l14-linearMSE.pth"),
}


def test_missing_weights_are_named_and_found_once_they_are_there(server, weights):
    for kind, more, file in NODES.values():
        with pytest.raises(ExecutionError) as caught:
            scored(server, {"4": graphs.node(kind, model="auto", precision="float32", **more)})
        assert f"{file} is missing" in str(caught.value)
        assert f"put it into {server.base / 'models/rewards'}" in str(caught.value)
    weights()
    for name, (kind, more, _) in NODES.items():
        scores = scored(server, {"4": graphs.node(kind, model="auto", precision="float32", **more)})
        assert list(scores) == [name]
        assert len(set(scores[name])) > 6


def test_a_file_of_another_model_is_refused_with_what_was_expected(server, weights):
    save_file({"double_blocks.0.weight": torch.zeros(2)}, weights() / "other.safetensors")
    with pytest.raises(ExecutionError, match=r"other.safetensors is no CLIP of a picture and a text tower"):
        scored(server, {"4": graphs.node("HPSv2Reward", model="other.safetensors", precision="auto")})
    with pytest.raises(ExecutionError, match=r"there is no 'gone.pt' in models/rewards: put it there and press R"):
        scored(server, {"4": graphs.node("PickScoreReward", model="gone.pt", precision="auto")})


def tastes(server) -> dict:
    """Text preference (4), reference similarity (45) to two pictures, and sharpness (46)."""
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.new("RGB", (64, 64), colour).save(server.base / f"input/{name}.png")
    load = {n: {"class_type": "LoadImage", "inputs": {"image": f"{n}.png"}} for n in ("red", "blue")}
    batch = {"class_type": "ImageBatch", "inputs": {"image1": ["red", 0], "image2": ["blue", 0]}}
    like = {"model": "embedded", "compare": "best", "precision": "auto"}
    words = {"wanted": "spider:2\n\nbutterfly", "unwanted": "zebra", "model": "embedded", "precision": "auto"}
    off = {f"{what}_{n}": value for n in range(1, 5) for what, value in (("weight", 1.0), ("held_out", False))}
    return load | {
        "44": batch,
        "45": graphs.node("ReferenceSimilarity", references=["44", 0], **like),
        "46": graphs.node("SharpnessReward"),
        "47": graphs.node("TextPreference", **words),
        "4": graphs.node("CombineRewards", **off, reward_1=["47", 0], reward_2=["45", 0], reward_3=["46", 0]),
    }


def test_a_run_remembers_phrases_and_references_so_that_it_can_be_repeated(server):
    train = graphs.train(name="tastes", iterations=1) | tastes(server)
    server.wait(server.queue(train))
    with sqlite3.connect(server.base / "output/neighbor_grpo/tastes/run.sqlite") as database:
        (text,) = database.execute("SELECT value FROM info WHERE key = 'settings'").fetchone()
    words, like, sharp = json.loads(text)["rewards"]
    assert (words["options"]["wanted"], words["options"]["unwanted"]) == (["spider:2", "butterfly"], ["zebra"])
    assert [Image.open(f).getpixel((5, 5)) for f in like["options"]["references"]] == [(200, 30, 30), (30, 30, 200)]
    assert sharp["kind"] == "sharpness"
    image = torch.tensor([200, 30, 30]).view(1, 3, 1, 1).expand(1, 3, 64, 64) / 255
    again = {r["kind"]: build(r["kind"], r["options"], "cpu") for r in (words, like, sharp)}
    assert again["reference-similarity"].score(image, [""]).item() == pytest.approx(1, abs=1e-5)


def test_scores_of_tastes_differ_among_candidates(server):
    scores = scored(server, tastes(server))
    assert list(scores) == ["text-preference", "reference-similarity", "sharpness"]
    assert all(len(set(values)) > 6 for values in scores.values())


def test_the_same_references_are_kept_once(server):
    folder = server.base / "output/neighbor_grpo/references"
    assert len(list(folder.glob("*.png"))) == 2


def test_no_phrase_at_all_is_one_clear_sentence(server):
    empty = graphs.node("TextPreference", wanted=" \n", unwanted="", model="embedded", precision="auto")
    with pytest.raises(ExecutionError, match="wanted and unwanted are both empty, give at least one phrase"):
        scored(server, {"4": empty})


def test_pictures_beyond_the_range_are_not_scored(server):
    graph = graphs.steps() | {"4": graphs.node("SharpnessReward")}
    graph["20"] = {"class_type": "ProbeBrighter", "inputs": {"images": ["5", 1]}}
    graph["6"]["inputs"]["images"] = ["20", 0]
    with pytest.raises(ExecutionError, match=r"to 2.* cannot be scored: must be from 0 to 1"):
        server.wait(server.queue(graph))
