"""What a person does and sees at ComfyUI's page: open a template, press Run, watch the progress, look at a node."""

import io
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from comfy_server import ComfyServer, HostError
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = {"width": 1600, "height": 1000}  # pixels; every template is readable at this size
HEAD = 60  # of a preview node: title and socket, above the picture
CURRENT = re.compile(r"Current node:\s*([^\n%]+?)\s*(\d+)%")
PLACE = """number => {
    const node = app.graph.getNodeById(number), {scale} = app.canvas.ds
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1]])
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    return {x: left + x, y: top + y, width: node.size[0] * scale, height: node.size[1] * scale}
}"""


def open_template(page: "Page", pack: str, name: str) -> None:
    """Through the sidebar and the template browser, by clicks alone."""
    page.set_viewport_size(SIZE)
    page.locator(".templates-tab-button").click()
    page.locator(".workflow-template-selector-dialog").get_by_text(pack, exact=True).first.click()
    card = page.get_by_test_id(f"template-workflow-{name}")
    card.locator("img").wait_for()  # its thumbnail
    card.click()
    page.wait_for_function("name => document.title.includes(name)", arg=name)
    settle(page)


def load(page: "Page", graph: dict[str, Any]) -> None:
    """As if the file were dropped on the page."""
    page.set_viewport_size(SIZE)
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    settle(page)


def settle(page: "Page") -> None:
    """The view has been fitted to the graph, and nothing lies over it."""
    page.wait_for_timeout(500)
    page.evaluate("app.extensionManager.toast.removeAll()")


def run(page: "Page", server: ComfyServer, timeout: float = 180) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """Press Run and watch: the history entry, and what the page said of the progress (node, percent).

    Raises:
        HostError: it failed, or was not done after `timeout` seconds; with what ComfyUI says.
    """
    before, seen, deadline = set(server.get("/history")), [], time.monotonic() + timeout
    page.get_by_test_id("queue-button").click()
    while not (new := set(server.get("/history")) - before):
        if time.monotonic() > deadline:
            raise HostError(f"not done after {timeout:.0f} s; the page says: {page.inner_text('body')}")
        seen += [(node, int(percent)) for node, percent in CURRENT.findall(page.inner_text("body"))]
        page.wait_for_timeout(150)
    return server.wait(new.pop()), seen


def look(page: "Page", number: int) -> np.ndarray:
    """What the page shows where a node lies, below its head: [height, width, 3]."""
    place = page.evaluate(PLACE, number)
    with Image.open(io.BytesIO(page.screenshot(clip=place))) as picture:
        head = round(HEAD * place["width"] / page.evaluate("n => app.graph.getNodeById(n).size[0]", number))
        return np.asarray(picture.convert("RGB"))[head:].astype(int)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels that look different."""
    return float((np.abs(before - after).max(-1) > 16).mean())
