"""The templates: listed, laid out for people, and run to the end by the real frontend."""

import io
import json
import re
import shutil
import sqlite3

import pytest
import tiny_files
import workflow
from comfy_install import ROOT
from comfy_server import DIRECT, PACK, ExecutionError
from PIL import Image

FOLDER = ROOT / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
PACK_NAME = next(iter(PACK))
FLUX_DEV = {  # what templates 3 and 4 name -> the tiny file that stands in for it
    "diffusion_models/flux1-dev.safetensors": "unet",
    "text_encoders/clip_l.safetensors": "clip",
    "text_encoders/t5xxl_fp8_e4m3fn.safetensors": "t5",
    "vae/ae.safetensors": "vae",
}

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
# The frontend asks for two things that are not there: how large a missing model is, and ComfyUI's own templates.
ABSENT = re.compile(r"huggingface\.co|fetching file size|templates/index|core workflow templates")


def template(number: int):
    return next(file for file in FILES if file.name.startswith(f"{number}-"))


def test_there_are_four_and_comfyui_lists_them_all_with_a_thumbnail(server):
    listed = server.get("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == [file.stem for file in FILES]
    assert len(listed) == 4
    for name in listed:
        with DIRECT.open(f"{server.url}/api/workflow_templates/{PACK_NAME}/{name}.jpg") as reply:
            data = reply.read()
        assert len(data) < 150_000
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.width > 600


# ---- the layout


def box(item: dict) -> tuple[float, float, float, float]:
    """Left, top (title included), right, bottom of a node or group."""
    if "bounding" in item:
        x, y, width, height = item["bounding"]
        return x, y, x + width, y + height
    (x, y), (width, height) = item["pos"], item["size"]
    return x, y - 30, x + width, y + height


def overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a: tuple, b: tuple) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@each
def test_nodes_lie_apart_in_titled_groups_and_every_link_has_both_ends(file):
    graph = json.loads(file.read_text("utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    boxes = {name: box(node) for name, node in nodes.items()}
    groups = [box(group) for group in graph["groups"]]
    assert all(group["title"] for group in graph["groups"])
    assert [(a, b) for a in boxes for b in boxes if a < b and overlap(boxes[a], boxes[b])] == []
    loose = [n["type"] for name, n in nodes.items() if not any(inside(boxes[name], group) for group in groups)]
    assert set(loose) <= workflow.NOTES
    assert any(node["type"] in workflow.NOTES for node in nodes.values())
    for number, source, out, target, into, _kind in graph["links"]:
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
    wired = {n["inputs"][i]["link"] for n in nodes.values() for i in range(len(n.get("inputs", [])))} - {None}
    assert wired == {link[0] for link in graph["links"]}


# ---- in the frontend


@each
def test_it_loads_in_the_frontend_and_becomes_the_graph_that_the_file_says(page, console, server, file):
    shown = page.evaluate(
        """async graph => {
            await app.loadGraphData(graph)
            const known = LiteGraph.registered_node_types
            const missing = app.graph.nodes.filter(node => node.has_errors || !known[node.type])
            return [missing.map(node => node.type), (await app.graphToPrompt()).output]
        }""",
        json.loads(file.read_text("utf-8")),
    )
    assert [kind for kind in shown[0] if kind not in workflow.NOTES] == []
    expected = workflow.load(file, server.get("/object_info"))
    found = {name: {k: node[k] for k in ("class_type", "inputs")} for name, node in shown[1].items()}
    assert found.keys() == expected.keys()
    for name, node in expected.items():
        assert found[name]["class_type"] == node["class_type"]
        extra = {"preview": ""} if node["class_type"] == "PreviewAny" else {}  # a widget that only the frontend knows
        assert found[name]["inputs"] == node["inputs"] | extra
    assert not [line for line in console if not ABSENT.search(line)]


def run(page, server) -> dict:
    """Press Run, and wait as a person would; the history entry."""
    before = set(server.get("/history"))
    page.evaluate("app.extensionManager.toast.removeAll()")
    page.get_by_test_id("queue-button").click()
    while not (new := set(server.get("/history")) - before):
        page.wait_for_timeout(200)
    return server.wait(new.pop())


def test_the_first_one_opened_from_the_template_browser_trains_and_shows_its_progress(page, console, server):
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_test_id(f"template-workflow-{template(1).stem}").click()
    page.wait_for_function("app.graph.nodes.some(node => node.type === 'NeighborGRPOTrain')")
    page.evaluate(
        """() => {
            window.seen = {progress: [], previews: 0}
            const train = String(app.graph.nodes.find(node => node.type === 'NeighborGRPOTrain').id)
            app.api.addEventListener('progress', e => {
                if (String(e.detail.node) === train) window.seen.progress.push(e.detail.value)
            })
            app.api.addEventListener('b_preview_with_metadata', () => window.seen.previews++)
        }"""
    )
    run(page, server)
    iterations = next(n for n in json.loads(template(1).read_text("utf-8"))["nodes"] if n["type"].endswith("Train"))
    total = iterations["widgets_values"][0]
    page.wait_for_function(f"window.seen.progress.at(-1) === {total}")
    assert page.evaluate("window.seen.progress.length") >= total
    assert page.evaluate("window.seen.previews") >= total - 1
    page.wait_for_function("app.graph.nodes.find(node => node.type === 'PreviewImage').imgs?.length > 0")
    page.wait_for_function("app.graph.nodes.find(node => node.type === 'NeighborGRPOTrain').imgs?.length > 0")

    assert (server.base / "models/loras/neighbor_grpo_embedded.safetensors").is_file()
    with sqlite3.connect(server.base / "output/neighbor_grpo/embedded/run.sqlite") as database:
        query = "SELECT value FROM metrics WHERE name = 'reward/tiny-clip' ORDER BY iteration"
        curve = [value for (value,) in database.execute(query)]
    third = total // 3
    assert sum(curve[-third:]) > sum(curve[:third]) + 0.01 * third
    assert not [line for line in console if not ABSENT.search(line)]


def test_the_second_one_makes_a_step_at_every_run(page, server):
    page.evaluate("graph => app.loadGraphData(graph)", json.loads(template(2).read_text("utf-8")))
    for number in (1, 2):
        outputs = run(page, server)["outputs"]
        texts = [text for out in outputs.values() for text in out.get("text", [])]
        assert any(text.split()[:2] == ["step", str(number)] for text in texts)
        assert sum("images" in out for out in outputs.values()) == 2
    assert (server.base / "models/loras/neighbor_grpo_steps.safetensors").is_file()


def test_the_third_one_is_refused_for_the_missing_files_alone(server):
    """Before the stand-ins of the next test are there."""
    with pytest.raises(ExecutionError) as refused:
        server.queue(workflow.load(template(3), server.get("/object_info")))
    complaints = str(refused.value)
    assert "there is no 'flux1-dev.safetensors' in models/diffusion_models" in complaints
    assert "there is no reward model 'PickScore_v1': put its folder" in complaints
    for name in ("clip_l", "t5xxl_fp8_e4m3fn", "ae"):
        assert f"'{name}.safetensors' not in" in complaints
    assert complaints.count("; ") + 1 == 5


def test_the_fourth_one_draws_before_and_after(page, server):
    models = server.base / "models"
    tiny_files.write(models)
    for name, part in FLUX_DEV.items():
        shutil.copy(models / tiny_files.NAMES[part], models / name)
    shutil.copy(models / "loras/neighbor_grpo_embedded.safetensors", models / "loras/neighbor_grpo_flux.safetensors")
    graph = json.loads(template(4).read_text("utf-8"))
    for node in graph["nodes"]:  # the tiny FLUX draws small pictures
        if node["type"] == "EmptySD3LatentImage":
            node["widgets_values"] = [64, 64, 1]
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    outputs = run(page, server)["outputs"]
    pictures = [out["images"][0]["filename"] for out in outputs.values() if "images" in out]
    assert len(pictures) == 2
    before, after = ((server.base / "temp" / name).read_bytes() for name in pictures)
    assert before != after
    assert "lora key not loaded" not in server.log()
