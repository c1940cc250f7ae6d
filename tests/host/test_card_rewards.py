"""Every reward node that needs no download, in a ComfyUI on the card: its scores are those that the CPU gives."""

import graphs
import pytest
import torch
from chat_endpoint import ChatEndpoint
from patience import GUARD
from safetensors.torch import load_file
from served import running
from small_clip import small_clip

from trainer import tiny
from trainer.rewards import build

PROMPTS = ["spider on a red background", "butterfly on a blue background"]
PRECISE = {"precision": "float32"}


@pytest.fixture(scope="module")
def server(server_on_card):
    return server_on_card


@pytest.fixture(scope="module")
def hps(server) -> str:
    """A small CLIP in the layout of HPS_v2.1_compressed.pt."""
    folder = server.base / "models/rewards"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": small_clip().state_dict()}, folder / "HPS_v2.1_compressed.pt")
    return str(folder / "HPS_v2.1_compressed.pt")


@pytest.fixture
def judge():
    endpoint = ChatEndpoint()
    endpoint.answers = [lambda request: "Score: 4"]
    yield endpoint
    endpoint.stop()


def scored(server, rewards: dict[str, dict]) -> tuple[dict[str, list[float]], torch.Tensor]:
    """Scores of one rollout by each of the nodes, and its pictures, [12, 3, 64, 64] in [0, 1]."""
    rollout = {name: node for name, node in graphs.steps(**PRECISE).items() if name in "1235"}
    graph = rollout | {
        "write": {"class_type": "CardWriteImages", "inputs": {"images": ["5", 1]}},
        "load": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
    }
    for name, node in rewards.items():
        score = {"trajectories": ["5", 0], "images": ["5", 1], "reward": [name, 0]}
        graph |= {name: node, f"{name} scored": graphs.node("ScoreImages", **score)}
        graph[f"{name} table"] = {"class_type": "PreviewAny", "inputs": {"source": [f"{name} scored", 1]}}
    outputs = server.wait(server.queue(graph))["outputs"]
    tables = {name: outputs[f"{name} table"]["text"][0].splitlines()[1:] for name in rewards}
    images = load_file(server.base / "output/images.safetensors")["images"]
    return {n: [float(row.split()[1]) for row in rows] for n, rows in tables.items()}, images


def test_each_reward_node_scores_on_the_card_as_its_reward_does_on_the_cpu(server, hps, judge):
    off = {f"{what}_{n}": value for n in range(1, 5) for what, value in (("weight", 1.0), ("held_out", False))}
    words = {"wanted": "spider:2\nbutterfly", "unwanted": "zebra", "model": "embedded", **PRECISE}
    with running({"far": build("colourfulness", {}, "cpu")}) as far:
        address = {"url": far.url, "reward_name": "", "timeout": float(GUARD), "token_env": ""}
        asked = {"question": "", "score_pattern": r"Score: (\d+)", "best_score": 5.0, "size": 64, "concurrency": 4}
        asked |= {"url": judge.url, "model": "judge", "timeout": float(GUARD), "token_env": ""}
        nodes = {
            "clip": graphs.node("ClipReward", model="embedded", scale="cosine"),
            "colourfulness": graphs.node("ColourfulnessReward"),
            "sharpness": graphs.node("SharpnessReward"),
            "jpeg": graphs.node("JpegReward"),
            "words": graphs.node("TextPreference", **words),
            "like": graphs.node(
                "ReferenceSimilarity", references=["load", 0], model="embedded", compare="mean", **PRECISE
            ),
            "hps": graphs.node("HPSv2Reward", model="auto", **PRECISE),
            "remote": graphs.node("RemoteReward", **address),
            "judge": graphs.node("VlmJudge", **asked),
            "bounded": graphs.node("BoundReward", reward=["sharpness", 0], lowest=0.0, highest=1.0),
            "combined": graphs.node("CombineRewards", **off, reward_1=["clip", 0], reward_2=["sharpness", 0]),
        }
        found, images = scored(server, nodes)
    taste = {"path": str(tiny.CLIP), "dtype": "float32"}
    wanted = {"wanted": ["spider:2", "butterfly"], "unwanted": ["zebra"]}
    references = {"references": [str(server.base / "input/init.png")], "compare": "mean"}
    on_cpu = {
        "clip": build("tiny-clip", {}, "cpu"),
        "colourfulness": build("colourfulness", {}, "cpu"),
        "sharpness": build("sharpness", {}, "cpu"),
        "jpeg": build("jpeg-compressibility", {}, "cpu"),
        "words": build("text-preference", {**taste, **wanted}, "cpu"),
        "like": build("reference-similarity", {**taste, **references}, "cpu"),
        "hps": build("hpsv2.1", {"path": hps, "dtype": "float32"}, "cpu"),
    }
    prompts = [prompt for prompt in PROMPTS for _ in range(len(images) // len(PROMPTS))]
    expected = {name: reward.score(images, prompts).tolist() for name, reward in on_cpu.items()}
    expected |= {"remote": expected["colourfulness"], "judge": [0.8] * len(images)}
    expected |= {"bounded": expected["sharpness"], "combined": expected["clip"]}
    assert server.card()["peak"] > 0
    for name, values in found.items():
        assert len(values) == len(images) == 12
        assert len(set(values)) > 2 or name == "judge", name
        assert values == pytest.approx(expected[name], rel=1e-4, abs=1e-4), name  # tables have four places
