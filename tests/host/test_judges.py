"""The nodes that look, read and answer, in a real ComfyUI: what they score, and say when something is wrong."""

import importlib.util

import blip_reference
import graphs
import pytest
import torch
from chat_endpoint import ChatEndpoint
from comfy_server import ExecutionError
from patience import GUARD

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] spider butterfly on a red blue background".split()


def scored(server, **reward) -> dict[str, list[float]]:
    """Scores of one rollout by a reward node, by the names in the table."""
    graph = graphs.steps() | {"4": graphs.node(**reward)}
    table = server.wait(server.queue(graph | {"8": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}}}))
    head, *rows = table["outputs"]["8"]["text"][0].splitlines()
    return {name: [float(row.split()[1 + n]) for row in rows] for n, name in enumerate(head.split()[1:-1])}


def refused(server, **reward) -> str:
    with pytest.raises(ExecutionError) as caught:
        scored(server, **reward)
    return str(caught.value)


def test_imagereward_is_found_by_its_files_name_and_scores_every_candidate(server):
    folder = server.base / "models/rewards"
    folder.mkdir(parents=True, exist_ok=True)
    shapes = blip_reference.layout(128, 2, 64, 2, len(WORDS) + 2, positions=40, size=48)
    torch.save(blip_reference.random_tensors(shapes), folder / "ImageReward.pt")
    choice = {"kind": "ImageReward", "model": "ImageReward.pt", "precision": "float32"}
    message = refused(server, **choice)
    assert "vocab.txt is missing (232 kB, licence Apache-2.0)" in message
    assert f"put it into {folder}" in message
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    (values,) = scored(server, **choice).values()
    assert len(values) == 12
    assert len(set(values)) > 6


def test_imagereward_refuses_another_models_file(server):
    folder = server.base / "models/rewards"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"double_blocks.0.weight": torch.zeros(2)}, folder / "flux.pt")
    message = refused(server, kind="ImageReward", model="flux.pt", precision="auto")
    assert "flux.pt is not ImageReward 1.0 in its original form" in message


def test_the_ocr_node_says_what_is_missing(server):
    message = refused(server, kind="OcrReward")
    if importlib.util.find_spec("rapidocr"):
        assert "has no text in double quotes to look for" in message
    else:
        assert "rapidocr is not installed, run: " in message


@pytest.fixture
def judge():
    endpoint = ChatEndpoint()
    yield endpoint
    endpoint.stop()


def vlm(url: str, **options) -> dict:
    defaults = {
        "kind": "VlmJudge", "url": url, "model": "UnifiedReward", "question": "", "score_pattern": r"Score: (\d+)",
        "best_score": 5.0, "size": 64, "concurrency": 4, "timeout": float(GUARD), "token_env": "",
    }  # fmt: skip
    return defaults | options


def test_the_vlm_judge_asks_about_every_candidate_and_is_called_by_its_model(server, judge):
    numbers = iter(range(100))
    judge.answers = [lambda request: f"Score: {next(numbers) % 6}"]
    scores = scored(server, **vlm(judge.url))
    assert list(scores) == ["UnifiedReward"]
    assert sorted(scores["UnifiedReward"]) == sorted([0.0, 0.2, 0.4, 0.6, 0.8, 1.0] * 2)
    questions = {request["messages"][0]["content"][1]["text"] for _, request in judge.seen}
    assert {q.rpartition("Text Caption: ")[2] for q in questions} == {
        "[spider on a red background]",
        "[butterfly on a blue background]",
    }


def test_the_vlm_judge_names_what_is_wrong(server, judge):
    judge.stop()
    assert "must have one group, the number" in refused(server, **vlm(judge.url, score_pattern=r"Score: \d+"))
    assert "is no address of a server" in refused(server, **vlm("localhost"))
    assert "'NO_SUCH_TOKEN': this environment variable is not set" in refused(
        server, **vlm(judge.url, token_env="NO_SUCH_TOKEN")
    )
    assert "the question must have {prompt} where the prompt belongs" in refused(
        server, **vlm(judge.url, question="Is it good?")
    )
