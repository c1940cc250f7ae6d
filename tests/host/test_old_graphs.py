"""Graphs that people have saved: they open, keep every value and link, and do what they did.

`old_graphs/` holds the templates as the first version had them, in ComfyUI's two formats. Inputs may be added in every
version; what was saved stays where it was.
"""

import json
import sqlite3
from pathlib import Path

import pytest
import workflow
from comfy_server import ExecutionError
from test_workflows import TRAIN

FOLDER = Path(__file__).parent / "old_graphs"
NAMES = sorted(path.name.removesuffix(".api.json") for path in FOLDER.glob("*.api.json"))
STEP = "NeighborGRPOStep"
each = pytest.mark.parametrize("name", NAMES)

FIRST_REWARD = {  # mean of the first candidates, as the first version drew them
    "1-Train-on-the-embedded-model": 0.7815,
    "2-Train-step-by-step": 0.8498,
    "5-Image-to-image": 0.7755,
    "6-Inpainting": 0.8120,
}


def saved(name: str) -> dict:
    """As a file of ComfyUI."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def prompt(name: str) -> dict:
    """In the API format."""
    return json.loads((FOLDER / f"{name}.api.json").read_text("utf-8"))


def test_there_are_six():
    assert len(NAMES) == 6


@each
def test_it_opens_with_all_its_values_and_links(page, name):
    shown, broken = page.evaluate(
        """async graph => {
            await app.loadGraphData(graph)
            const known = LiteGraph.registered_node_types
            const broken = app.graph.nodes.filter(node => !known[node.type])
            return [(await app.graphToPrompt()).output, broken.map(node => node.type)]
        }""",
        saved(name),
    )
    assert set(broken) <= workflow.NOTES
    expected = prompt(name)
    assert shown.keys() == expected.keys()
    for number, node in expected.items():
        assert shown[number]["class_type"] == node["class_type"]
        assert {key: shown[number]["inputs"].get(key) for key in node["inputs"]} == node["inputs"], number


@pytest.mark.parametrize("name", FIRST_REWARD)
def test_its_prompt_runs_to_what_it_did(server, name):
    graph = prompt(name)
    for node in graph.values():
        if node["class_type"] == TRAIN:
            node["inputs"]["iterations"] = 1
    server.wait(server.queue(graph))
    (run,) = (node["inputs"]["run_name"] for node in graph.values() if node["class_type"] in (TRAIN, STEP))
    with sqlite3.connect(server.base / "output/neighbor_grpo" / run / "run.sqlite") as database:
        rows = database.execute("SELECT name, value FROM metrics WHERE iteration = 0 AND name LIKE 'reward/%'")
        assert dict(rows) == {"reward/tiny-clip": pytest.approx(FIRST_REWARD[name], abs=1e-3)}


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FIRST_REWARD)))
def test_its_prompt_lacks_files_alone(server, name):
    with pytest.raises(ExecutionError) as refused:
        server.queue(prompt(name))
    complaints = str(refused.value).removeprefix("/prompt: HTTP 400: ").split("; ")
    assert complaints
    assert [c for c in complaints if "not in" not in c and "there is no" not in c and "is missing" not in c] == []
