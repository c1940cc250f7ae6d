"""The English locale of the nodes, made from their schemas: what the frontend reads and what translators copy.

usage: python tests/host/make_locale.py    asks a ComfyUI for the schemas and writes locales/en/nodeDefs.json
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import comfy_install
from comfy_install import ROOT, HostError
from comfy_server import PACK, ComfyServer

FILE = ROOT / "locales" / "en" / "nodeDefs.json"
MODULE = f"custom_nodes.{next(iter(PACK))}"  # what ComfyUI calls the pack in /object_info
SYNTAX = "{}@|"  # the frontend's translator (vue-i18n) would read these as placeholders, links and plurals


def ours(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The pack's nodes among all that ComfyUI tells of in /object_info."""
    return {name: info for name, info in object_info.items() if info["python_module"] == MODULE}


def inputs(info: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """Name -> type, options, optional; in the order of the node."""
    return {
        name: (*info["input"][group][name], group == "optional")
        for group, names in info["input_order"].items()
        if group in ("required", "optional")
        for name in names
    }


def node_defs(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of nodeDefs.json."""
    return {name: node_def(info) for name, info in nodes.items()}


def node_def(info: Mapping[str, Any]) -> dict[str, Any]:
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            name: {"name": options.get("display_name", name), "tooltip": options.get("tooltip", "")}
            for name, (_, options, _) in inputs(info).items()
        },
        "outputs": {str(n): {"name": name, "tooltip": tooltip or ""} for n, (name, tooltip) in enumerate(outputs)},
    }


def as_text(defs: Mapping[str, Any]) -> str:
    return json.dumps(defs, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    try:
        with ComfyServer(comfy_install.find(), PACK) as server:
            nodes = ours(server.get("/object_info"))
    except HostError as problem:
        print(problem, file=sys.stderr)
        return 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(as_text(node_defs(nodes)), "utf-8")
    print(f"{FILE}: {len(nodes)} nodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
