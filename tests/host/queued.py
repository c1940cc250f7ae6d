"""A graph through ComfyUI's queue, and what it leaves."""

from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, ExecutionError
from PIL import Image

Graph = dict[str, Any]


def run(server: ComfyServer, graph: Graph) -> dict[str, str]:
    """The texts that the graph's nodes show, by node."""
    outputs = server.wait(server.queue(graph))["outputs"]
    return {name: out["text"][0] for name, out in outputs.items() if "text" in out}


def fails(server: ComfyServer, graph: Graph) -> str:
    with pytest.raises(ExecutionError) as error:
        run(server, graph)
    return str(error.value)


def pictures(server: ComfyServer, graph: Graph) -> list[np.ndarray]:
    saved = server.wait(server.queue(graph))["outputs"]["12"]["images"]
    return [np.asarray(Image.open(server.base / "output" / image["filename"])).astype(int) for image in saved]
