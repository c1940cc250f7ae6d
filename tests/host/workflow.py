"""A workflow as a person saves it, turned into the graph that ComfyUI's /prompt takes, as the frontend does it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"Note", "MarkdownNote"}


def load(path: Path, object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The API graph of a workflow file without subgraphs, muted or bypassed nodes.

    Args:
        object_info: ComfyUI's answer to /object_info, which has the order of each node's inputs.
    """
    workflow = json.loads(path.read_text("utf-8"))
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] not in NOTES:
            inputs = dict(_inputs(node, object_info[node["type"]]["input"], sources))
            graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _inputs(node: dict[str, Any], schema: Mapping[str, Any], sources: Mapping[int, list]) -> Iterator[tuple[str, Any]]:
    linked = {entry["name"]: entry["link"] for entry in node.get("inputs", []) if entry.get("link") is not None}
    values = iter(node.get("widgets_values") or [])
    for name, (kind, *options) in {**schema.get("required", {}), **schema.get("optional", {})}.items():
        settings = options[0] if options else {}
        is_widget = (isinstance(kind, list) or kind in WIDGETS) and not settings.get("forceInput")
        if is_widget:
            value = next(values, settings.get("default"))  # a node that has grown since it was saved
            if settings.get("control_after_generate"):
                next(values)
            yield name, sources[linked[name]] if name in linked else value
        elif name in linked:
            yield name, sources[linked[name]]
