"""The templates as they are drawn: nothing lies over another, in either look of the nodes."""

import json
from collections.abc import Mapping

import browser
import layout
import pytest
from comfy_install import ROOT
from layout import Box, box, inside, overlap, overlapping

GRAPHS = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted((ROOT / "workflows").glob("*.json"))}


@pytest.mark.on_newest_too
def test_templates_are_tidy_in_the_classic_look(page):
    all_tidy(page, "classic")


def test_templates_are_tidy_in_nodes_2(chromium, newest, console):
    """On the newest frontend: the old one only has the beginnings of this look."""
    page = browser.open_page(chromium, newest.url, console)
    all_tidy(page, "nodes-2")
    page.evaluate("setting => app.ui.settings.setSettingValueAsync(setting, false)", layout.SETTING)
    page.close()


def all_tidy(page, look: str) -> None:
    for name, graph in GRAPHS.items():
        drawn = layout.shown(page, graph, look)
        assert drawn.keys() == {node["id"] for node in graph["nodes"]}
        assert overlapping(drawn) == [], name
        assert strays(graph, drawn) == [], name


def strays(graph: Mapping, drawn: Mapping[int, Box]) -> list[tuple[int, str]]:
    """Nodes that stand out of their group or into another one, with its title."""
    saved = {node["id"]: box(node) for node in graph["nodes"]}
    return [
        (number, group["title"])
        for group in graph["groups"]
        for number, place in drawn.items()
        if not inside(place, box(group)) and (inside(saved[number], box(group)) or overlap(place, box(group)))
    ]
