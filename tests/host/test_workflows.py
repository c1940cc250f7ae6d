"""The templates: listed, laid out for people, and run to the end by the real frontend."""

import io
import json
import re
import shutil
import sqlite3
from pathlib import Path

import desk
import numpy as np
import pytest
import tiny_files
import workflow
from comfy_install import ROOT
from comfy_server import DIRECT, PACK, ExecutionError
from diffusers import FluxTransformer2DModel
from layout import box, inside, overlapping
from original_names import original_layout
from patience import until
from PIL import Image
from safetensors.torch import save_file

from trainer import tiny

FILES = sorted((ROOT / "workflows").glob("*.json"))
PACK_NAME = next(iter(PACK))
FLUX_DEV = {  # what templates 3 and 4 name -> the tiny file that stands in for it
    "diffusion_models/flux1-dev.safetensors": "unet",
    "text_encoders/clip_l.safetensors": "clip",
    "text_encoders/t5xxl_fp8_e4m3fn.safetensors": "t5",
    "vae/ae.safetensors": "vae",
}
TRAIN, PREVIEW = "NeighborGRPOTrain", "PreviewImage"

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
# The frontend asks for two things that are not there: how large a missing model is, and ComfyUI's own templates.
ABSENT = re.compile(
    r"huggingface\.co|fetching file size|templates/(index|fuse_options)|(core workflow templates|fuse options):"
)


def template(number: int) -> Path:
    return next(file for file in FILES if file.name.startswith(f"{number}-"))


def read(number: int) -> dict:
    return json.loads(template(number).read_text("utf-8"))


def ids(graph: dict, kind: str) -> list[int]:
    return [node["id"] for node in graph["nodes"] if node["type"] == kind]


def test_there_are_six_and_comfyui_lists_them_all_with_a_thumbnail(server):
    listed = server.get("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == [file.stem for file in FILES]
    assert len(listed) == 6
    for name in listed:
        assert re.fullmatch("[A-Za-z0-9_-]+", name)  # all that a link such as /?template=name may hold
        with DIRECT.open(f"{server.url}/api/workflow_templates/{PACK_NAME}/{name}.jpg") as reply:
            data = reply.read()
        assert len(data) < 100_000
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert min(picture.size) >= 400
            assert picture.width == picture.height  # fills its card


# ---- the layout


@each
def test_nodes_lie_apart_in_titled_groups_and_every_link_has_both_ends(file):
    graph = json.loads(file.read_text("utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    boxes = {name: box(node) for name, node in nodes.items()}
    groups = [box(group) for group in graph["groups"]]
    assert all(group["title"] for group in graph["groups"])
    assert overlapping(boxes) == overlapping(dict(enumerate(groups))) == []
    loose = [n["type"] for name, n in nodes.items() if not any(inside(boxes[name], group) for group in groups)]
    assert set(loose) <= workflow.NOTES
    assert any(node["type"] in workflow.NOTES for node in nodes.values())
    for number, source, out, target, into, _kind in graph["links"]:
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
    wired = {n["inputs"][i]["link"] for n in nodes.values() for i in range(len(n.get("inputs", [])))} - {None}
    assert wired == {link[0] for link in graph["links"]}


# ---- in the frontend


@pytest.mark.on_newest_too
@each
def test_it_loads_in_the_frontend_and_becomes_the_graph_that_the_file_says(page, console, server, file):
    graph = json.loads(file.read_text("utf-8"))
    missing, shown, saved = page.evaluate(
        """async graph => {
            await app.loadGraphData(graph)
            const known = LiteGraph.registered_node_types
            const missing = app.graph.nodes.filter(node => !known[node.type])
            return [missing.map(node => node.type), (await app.graphToPrompt()).output, app.graph.serialize().nodes]
        }""",
        graph,
    )
    assert [kind for kind in missing if kind not in workflow.NOTES] == []
    expected = workflow.load(file, server.get("/object_info"))
    found = {name: {k: node[k] for k in ("class_type", "inputs")} for name, node in shown.items()}
    assert found.keys() == expected.keys()
    for name, node in expected.items():
        assert found[name]["class_type"] == node["class_type"]
        found[name]["inputs"].pop("preview", None)  # a widget of PreviewAny that only some frontends know
        assert found[name]["inputs"] == node["inputs"]
    assert overlapping({node["id"]: box(node) for node in saved}) == []  # none grew at loading
    values = {node["id"]: node.get("widgets_values") or [] for node in graph["nodes"]}
    assert {node["id"]: node.get("widgets_values") or [] for node in saved} == values
    assert not [line for line in console if not ABSENT.search(line)]


def test_the_frontend_has_nothing_against_their_format(page):
    told = page.evaluate(
        """async graphs => {
            const told = [], { toast } = app.extensionManager
            toast.addAlert = line => told.push(line)
            for (const graph of graphs) await app.loadGraphData(graph)
            return told
        }""",
        [json.loads(file.read_text("utf-8")) for file in FILES],
    )
    assert told == []


def test_the_first_one_opened_from_the_template_browser_trains_and_shows_its_progress(page, console, server):
    graph = read(1)
    (train,), (curve,) = ids(graph, TRAIN), ids(graph, PREVIEW)
    desk.open_template(page, PACK_NAME, template(1).stem)
    blank = {number: desk.look(page, number) for number in (train, curve)}
    _, seen = desk.run(page, server)

    percents = [percent for node, percent in seen if node == "Neighbor GRPO Train"]
    assert percents == sorted(percents)
    assert len(set(percents)) > 2  # a page that has little of the processor leaves some out
    desk.until_changed(page, {train: blank[train]}, 0.25)  # the best candidate, below the widgets
    desk.until_changed(page, {curve: blank[curve]}, 0.5)

    assert (server.base / "models/loras/neighbor_grpo_embedded.safetensors").is_file()
    with sqlite3.connect(server.base / "output/neighbor_grpo/embedded/run.sqlite") as database:
        query = "SELECT value FROM metrics WHERE name = 'reward/tiny-scene' ORDER BY iteration"
        rewards = [value for (value,) in database.execute(query)]
    third = len(rewards) // 3
    assert third >= 5
    assert sum(rewards[-third:]) > sum(rewards[:third]) + 0.05 * third
    assert not [line for line in console if not ABSENT.search(line)]


def test_the_second_one_makes_a_step_at_every_run_and_shows_both_sheets(page, server):
    graph = read(2)
    (text,), previews = ids(graph, "PreviewAny"), ids(graph, PREVIEW)
    desk.load(page, graph)
    blank = {number: desk.look(page, number) for number in previews}
    assert len(blank) == 2
    for number in (1, 2):
        outputs = desk.run(page, server)[0]["outputs"]
        desk.until_changed(page, blank, 0.5)
        lines = outputs[str(text)]["text"][0].splitlines()
        assert lines[0].split() == ["step", str(number)]
        until(lambda: [line[4:] for line in lines] in desk.columns(page), lambda: desk.columns(page))  # noqa: B023
    assert (server.base / "models/loras/neighbor_grpo_steps.safetensors").is_file()


@pytest.mark.parametrize(("number", "name"), [(5, "image_to_image"), (6, "inpainting")])
def test_the_fifth_and_sixth_train_from_a_picture(page, server, number, name):
    graph = read(number)
    previews = ids(graph, PREVIEW)
    desk.load(page, smaller(graph, {TRAIN: {0: 3}, "NeighborGRPONoiseNeighborhood": {2: 4}}))
    blank = {at: desk.look(page, at) for at in previews}
    outputs = desk.run(page, server)[0]["outputs"]
    desk.until_changed(page, blank, 0.01)  # the picture to begin from is small, in the middle of its node
    assert (server.base / f"models/loras/neighbor_grpo_{name}.safetensors").is_file()
    run = server.base / "output/neighbor_grpo" / name
    with sqlite3.connect(run / "run.sqlite") as database:
        ((text,),) = database.execute("SELECT value FROM info WHERE key = 'settings'")
    init = json.loads(text)["init"]
    assert 0 < init["denoise"] < 1
    assert len(init["digest"]) == 64
    begun = corner(server.base / "temp" / outputs[str(min(previews))]["images"][0]["filename"])
    last = max(path for path in (run / "tiles").iterdir() if path.is_dir())
    away = max(np.abs(corner(tile) - begun).mean() for tile in last.glob("0-?.webp"))
    assert (away < 16) == (name == "inpainting")  # of 255: what the mask keeps stays, else the background changes


def corner(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))[:4, :4].astype(int)


def test_image_values_are_those_of_plain_pictures(server):
    """Half black, half white, side by side: every measure is known."""
    picture = Image.new("RGB", (8, 4))
    picture.paste((255, 255, 255), (4, 0, 8, 4))
    picture.save(server.base / "input/halves.png")
    Image.new("RGB", (8, 4), (255, 0, 0)).save(server.base / "input/red.png")
    expected = {
        ("halves.png", "brightness"): 0.5,
        ("halves.png", "contrast"): 0.5,
        ("halves.png", "saturation"): 0.0,
        ("halves.png", "sharpness"): 1 / 7 / 2,  # one step in seven across, none down
        ("red.png", "brightness"): 0.299,
        ("red.png", "contrast"): 0.0,
        ("red.png", "saturation"): 1.0,
        ("red.png", "sharpness"): 0.0,
    }
    for (name, measure), value in expected.items():
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "NeighborGRPOImageValues", "inputs": {"images": ["1", 0], "measure": measure}},
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
        }
        (shown,) = server.wait(server.queue(graph))["outputs"]["3"]["text"]
        assert float(shown) == pytest.approx(value, abs=1e-6)


# ---- FLUX.1-dev: first without its files, then with tiny ones in their place


@pytest.mark.on_newest_too
def test_the_third_one_opened_by_a_link_names_the_files_to_download(page, site):
    page.goto(f"{site.url}/?template={template(3).stem}&source={PACK_NAME}")
    listed = desk.missing_files(page)
    names = sorted(name.partition("/")[2] for name in FLUX_DEV)
    until(
        lambda: sorted(re.findall(r"\S+\.safetensors", listed.inner_text())) == names,
        listed.inner_text,
        lambda: page.wait_for_timeout(100),
    )


def test_the_third_one_is_refused_for_the_missing_files_alone(server):
    with pytest.raises(ExecutionError) as refused:
        server.queue(workflow.load(template(3), server.get("/object_info")))
    complaints = str(refused.value)
    assert "there is no 'flux1-dev.safetensors' in models/diffusion_models" in complaints
    for name in ("HPS_v2.1_compressed.pt", "PickScore_v1"):
        assert f"{name} is missing" in complaints
    for name in ("clip_l", "t5xxl_fp8_e4m3fn", "ae"):
        assert f"'{name}.safetensors' not in" in complaints
    assert complaints.count("; ") + 1 == 6


@pytest.fixture(scope="module")
def stand_ins(server):
    """Tiny files under the names that templates 3 and 4 want, the transformer's in the layout of FLUX.1-dev's."""
    models = server.base / "models"
    tiny_files.write(models)
    for name, part in FLUX_DEV.items():
        shutil.copy(models / tiny_files.NAMES[part], models / name)
    flux = FluxTransformer2DModel.from_pretrained(tiny.FLUX, subfolder="transformer")
    tensors = {name: tensor.float().contiguous() for name, tensor in original_layout(flux).items()}
    save_file(tensors, models / "diffusion_models/flux1-dev.safetensors")
    for name in ("HPS_v2.1", "PickScore_v1"):
        shutil.copytree(tiny.CLIP, models / "rewards" / name)


def smaller(graph: dict, changes: dict[str, dict[int, object]]) -> dict:
    """The graph with other widget values: node type -> position -> value."""
    for node in graph["nodes"]:
        for at, value in changes.get(node["type"], {}).items():
            node["widgets_values"][at] = value
    return graph


def test_the_third_one_trains_the_stand_ins(page, server, stand_ins):
    text = "spider on a red background\nmonkey on a pink background"
    changes = {
        "NeighborGRPONoiseNeighborhood": {2: 4, 3: 64, 4: 64},
        "NeighborGRPOPromptSet": {0: text},
        "CLIPTextEncode": {0: text.splitlines()[0]},
        TRAIN: {0: 2, 4: 4},
    }
    graph = smaller(read(3), changes)
    (curve,) = ids(graph, PREVIEW)
    desk.load(page, graph)
    blank = desk.look(page, curve)
    desk.run(page, server)
    desk.until_changed(page, {curve: blank}, 0.5)
    assert (server.base / "models/loras/neighbor_grpo_flux.safetensors").is_file()
    with sqlite3.connect(server.base / "output/neighbor_grpo/flux_lora/run.sqlite") as database:
        names = {name for (name,) in database.execute("SELECT name FROM metrics WHERE name LIKE 'reward/%'")}
    assert names == {"reward/hpsv2.1", "reward/pickscore"}


def test_the_fourth_one_draws_before_and_after(page, server, stand_ins):
    graph = smaller(read(4), {"EmptySD3LatentImage": {0: 64, 1: 64}})
    loras = server.base / "models/loras"
    shutil.copy(loras / "neighbor_grpo_embedded.safetensors", loras / "neighbor_grpo_flux.safetensors")
    desk.load(page, graph)
    blank = {number: desk.look(page, number) for number in ids(graph, PREVIEW)}
    outputs = desk.run(page, server)[0]["outputs"]
    desk.until_changed(page, blank, 0.01)  # small, in the middle
    before, after = (server.base / "temp" / outputs[str(n)]["images"][0]["filename"] for n in sorted(blank))
    assert before.read_bytes() != after.read_bytes()
    assert "lora key not loaded" not in server.log()
