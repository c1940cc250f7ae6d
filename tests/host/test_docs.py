"""What users read about the nodes: the help pages and the locale say what the schemas say, and reach the page."""

import json
import re
from collections.abc import Mapping
from typing import Any

import browser
import desk
import help_pages
import make_locale
import pytest
from comfy_server import DIRECT, PACK

ADDRESS = f"/extensions/{next(iter(PACK))}/docs"
NOT_OURS = f"{ADDRESS}/[^/]+/en\\.md\\)$"  # the frontend asks for a page of the user's language first; 404 is an error
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# what people type who do not know the pack's name
WORDS = {
    "NeighborGRPOTrain": ("GRPO", "RLHF", "reinforcement learning", "reward", "fine-tune", "LoRA", "train"),
    "NeighborGRPOLoadPolicy": ("LoRA training", "reward", "FLUX"),
    "NeighborGRPOClipReward": ("preference", "reward", "PickScore"),
    "NeighborGRPOSaveLora": ("LoRA", "trained"),
}

each_page = pytest.mark.parametrize("name", help_pages.names())


@pytest.fixture(scope="module")
def everything(server) -> dict[str, Any]:
    return server.get("/object_info")


@pytest.fixture(scope="module")
def nodes(everything) -> dict[str, Any]:
    return make_locale.ours(everything)


# ---- the schemas


def test_every_input_and_output_has_a_tooltip_and_every_node_a_description(nodes):
    assert len(nodes) >= 16
    silent = [name for name, info in nodes.items() if not info["description"]]
    for name, info in nodes.items():
        silent += [
            f"{name}.{i}" for i, (_, options, _) in make_locale.inputs(info).items() if not options.get("tooltip")
        ]
        outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
        silent += [f"{name}.{output}" for output, tooltip in outputs if not tooltip]
    assert not silent


def test_outputs_are_called_by_a_name_and_not_by_their_type(nodes):
    assert [(name, o) for name, info in nodes.items() for o in info["output_name"] if not o.islower()] == []


def test_numbers_have_a_range_and_a_default_within_it(nodes):
    wrong, checked = [], 0
    for name, info in nodes.items():
        for i, (kind, options, _) in make_locale.inputs(info).items():
            if kind in ("INT", "FLOAT") and not options.get("forceInput"):
                checked += 1
                if not ({"min", "max", "default"} <= options.keys() and in_range(options)):
                    wrong.append(f"{name}.{i}: {options}")
    assert checked > 30
    assert not wrong


def in_range(options: Mapping[str, Any]) -> bool:
    return options["min"] <= options["default"] <= options["max"] and options["min"] < options["max"]


def test_the_words_that_people_search_for_are_there(nodes):
    texts = {name: f"{info['display_name']} {info['description']}".lower() for name, info in nodes.items()}
    assert [(name, w) for name, words in WORDS.items() for w in words if w.lower() not in texts[name]] == []


# ---- the pages


@each_page
def test_a_page_names_the_node_all_its_inputs_and_outputs_and_no_other(nodes, name):
    page, info = help_pages.read(name), nodes[name]
    assert page.title == info["display_name"]
    assert sorted(item.name for item in page.inputs) == sorted(make_locale.inputs(info))
    assert list(page.outputs) == info["output_name"]


@each_page
def test_a_pages_defaults_and_ranges_are_those_of_the_schema(everything, nodes, name):
    wrong = []
    for item in help_pages.read(name).inputs:
        kind, options, optional = make_locale.inputs(nodes[name])[item.name]
        fits = is_right(item, kind, options, optional, everything)
        if not fits:
            wrong.append(f"{item.name}: {item.default} · {item.range}, but {kind} {options}")
    assert not wrong


def is_right(item: help_pages.Input, kind: str, options: Mapping, optional: bool, everything: Mapping) -> bool:
    if kind not in WIDGETS or options.get("forceInput"):
        return item.default == ("optional" if optional else "needed") and comes_from(item.range, kind, everything)
    if kind == "BOOLEAN":
        return item.default == ("on" if options["default"] else "off") and item.range == "off or on"
    if kind == "COMBO":
        listed, choices = help_pages.ticked(item.range), options["options"]
        more = ", or a " in item.range  # files and folders, which nobody has but the user
        chosen = options.get("default", choices[0])
        return help_pages.ticked(item.default) == [chosen] and listed == choices[: len(listed) if more else None]
    if kind == "STRING":
        default = options["default"].splitlines()
        return (help_pages.ticked(item.default) or item.default) == (default or "empty") and item.range[:4] == "text"
    low, high = re.match(r"(\S+) to ([^\s,]+)", item.range).groups()
    step = re.search(r"in steps of (\d+)", item.range)
    same = (float(item.default), float(low), float(high)) == tuple(
        float(options[key]) for key in ("default", "min", "max")
    )
    return same and (kind == "FLOAT" or int(step[1] if step else 1) == options.get("step", 1))


def comes_from(text: str, kind: str, everything: Mapping) -> bool:
    """Whether every node in "from A, B or C" exists and has an output of the type."""
    if not text.startswith("from "):
        return False
    makers = {info["display_name"] for info in everything.values() if kind in info["output"]}
    named = re.split(r", such as |, | or ", text.removeprefix("from "))
    return all(maker in makers or maker == "any node" for maker in named)


@each_page
def test_the_page_is_served_where_the_frontend_asks_for_it(server, name):
    with DIRECT.open(f"{server.url}{ADDRESS}/{name}.md") as reply:
        assert reply.read() == help_pages.path(name).read_bytes()


# ---- the locale


def test_the_locale_file_is_made_from_the_schemas(nodes):
    text = make_locale.FILE.read_text("utf-8")
    assert text == make_locale.as_text(make_locale.node_defs(nodes)), "run `python tests/host/make_locale.py`"


def test_the_locale_has_nothing_that_the_translator_takes_for_its_syntax():
    assert [
        line for line in leaves(json.loads(make_locale.FILE.read_text("utf-8"))) if set(line) & set(make_locale.SYNTAX)
    ] == []


def leaves(tree: Any) -> list[str]:
    return [line for branch in tree.values() for line in leaves(branch)] if isinstance(tree, dict) else [tree]


def test_comfyui_delivers_our_locale(server):
    delivered = server.get("/api/i18n")["en"]["nodeDefs"]
    expected = json.loads(make_locale.FILE.read_text("utf-8"))
    assert {name: delivered[name] for name in expected} == expected


# ---- in the browser


def put_on_canvas(page, name: str) -> None:
    """A graph of this node alone, selected, between the places where old and new frontends open the help."""
    page.set_viewport_size(desk.SIZE)
    page.evaluate(
        """name => {
            app.graph.clear()
            app.canvas.ds.reset()
            const node = LiteGraph.createNode(name)
            node.pos = [700, 150]
            app.graph.add(node)
            app.canvas.selectNode(node)
        }""",
        name,
    )


@pytest.mark.on_newest_too
def test_the_info_button_opens_every_nodes_page_and_it_fits_the_panel(page, console, nodes):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if ADDRESS in request.url else None)
    page.evaluate(desk.STILL)  # before, a selection may show no buttons
    for name, info in nodes.items():
        put_on_canvas(page, name)
        page.get_by_test_id("info-button").click()
        help_panel = page.locator(".node-help-content")
        help_panel.get_by_role("heading", level=1, name=info["display_name"], exact=True).wait_for()
        assert asked[-1].endswith(f"{ADDRESS}/{name}.md")
        text = " ".join(help_panel.inner_text().split())
        written = help_pages.read(name)
        for effect in [
            *(item.effect for item in written.inputs),
            *written.outputs.values(),
            *written.troubles.values(),
        ]:
            assert effect.replace("`", "").replace("*", "") in text
        wider = "panel => [panel, ...panel.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert help_panel.evaluate(wider) == 0, name
    assert [line for line in console if not re.search(NOT_OURS, line)] == []


@pytest.fixture
def translated_page(page):
    """The page with a translation of our locale file in the place of the file: a pilcrow before every text."""

    def translated(tree: Any) -> Any:
        return {key: translated(value) for key, value in tree.items()} if isinstance(tree, dict) else f"¶ {tree}"

    locale = {"en": {"nodeDefs": translated(json.loads(make_locale.FILE.read_text("utf-8")))}}
    page.route("**/api/i18n", lambda route: route.fulfill(json=locale))
    page.reload()
    page.wait_for_function(browser.READY)
    return page


@pytest.mark.on_newest_too
def test_a_translation_of_the_locale_file_replaces_every_text_on_the_node(translated_page, nodes):
    for name, info in nodes.items():
        shown = translated_page.evaluate(
            """name => {
                const node = LiteGraph.createNode(name)
                const { description } = node.constructor.nodeData
                const names = slots => slots.map(slot => slot.localized_name)
                return [node.title, description, names(node.inputs).sort(), names(node.outputs)]
            }""",
            name,
        )
        texts = [info["display_name"], info["description"]]
        names = sorted(make_locale.inputs(info)), info["output_name"]
        assert shown == [*(f"¶ {text}" for text in texts), *([f"¶ {n}" for n in group] for group in names)]


@pytest.mark.on_newest_too
def test_a_translated_tooltip_appears_over_its_widget(translated_page, nodes):
    put_on_canvas(translated_page, "NeighborGRPOSaveLora")
    translated_page.evaluate(desk.STILL)
    x, y = translated_page.evaluate(
        """() => {
            const node = app.graph.nodes[0]
            const widget = node.widgets.find(widget => widget.name === 'overwrite')
            return app.canvasPosToClientPos([node.pos[0] + 40, node.pos[1] + widget.last_y + 8])
        }"""
    )
    translated_page.mouse.move(x - 5, y)
    translated_page.mouse.move(x, y)
    _, options, _ = make_locale.inputs(nodes["NeighborGRPOSaveLora"])["overwrite"]
    translated_page.get_by_text(f"¶ {options['tooltip']}").wait_for()
