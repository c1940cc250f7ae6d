"""What a person does and sees at ComfyUI's page: open a template, press Run, watch the progress, look at a node."""

import io
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from comfy_server import ComfyServer
from patience import until
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SIZE = {"width": 1600, "height": 1000}  # pixels; every template is readable at this size
HEAD = 60  # of a preview node: title and socket, above the picture
TOAST = ".p-toast-message, [data-testid=toast]"  # of old frontends and of new ones
NO_TOASTS = "(({dismissAll, removeAll}) => (dismissAll ?? removeAll)())(app.extensionManager.toast)"
SEE_ERRORS = re.compile("See Errors|Show missing models|View details")  # one frontend after the other
TEXTS = "[...document.querySelectorAll('.comfy-markdown code, textarea')].map(area => area.value ?? area.innerText)"
CURRENT = re.compile(r"Current node:\s*([^\n%]+?)\s*(\d+)%")
PLACE = """number => {
    const node = app.graph.getNodeById(number), {scale} = app.canvas.ds
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1]])
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    return {x: left + x, y: top + y, width: node.size[0] * scale, height: node.size[1] * scale}
}"""


# true once the view has stood still for some frames, however long the machine takes for one
STILL = """async () => {
    let last = "", frames = 0
    while (frames < 20) {
        await new Promise(requestAnimationFrame)
        const {scale, offset} = app.canvas.ds, view = JSON.stringify([scale, [...offset]])
        frames = view === last ? frames + 1 : 0
        last = view
    }
    return true
}"""


def tab(page: "Page", name: str) -> "Locator":
    """The button of a tab of the side bar."""
    return page.locator(f".{name}-tab-button, [data-testid={name}-tab-button]")


def open_template(page: "Page", pack: str, name: str) -> None:
    """Through the sidebar and the template browser, by clicks alone."""
    page.set_viewport_size(SIZE)
    tab(page, "templates").click()
    page.get_by_role("dialog").get_by_text(pack, exact=True).first.click()
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


def missing_files(page: "Page") -> "Locator":
    """Where the page lists the files that a graph names and nobody has: a dialog, or a panel behind a button."""
    dialog, button = page.get_by_role("dialog"), page.get_by_role("button", name=SEE_ERRORS)
    dialog.or_(button).first.wait_for()
    if dialog.count():
        return dialog
    button.click()
    return page.get_by_test_id("properties-panel")


def settle(page: "Page") -> None:
    """The view has been fitted to the graph, and nothing lies over it."""
    page.evaluate(STILL)
    page.evaluate(NO_TOASTS)


def run(page: "Page", server: ComfyServer) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """Press Run and watch: the history entry, and what the page said of the progress (node, percent).

    Raises:
        HostError: it failed; with what ComfyUI says.
    """
    before, seen = set(server.get("/history")), []

    def look() -> None:
        seen.extend((node, int(percent)) for node, percent in CURRENT.findall(page.inner_text("body")))
        page.wait_for_timeout(150)

    page.get_by_test_id("queue-button").click()
    until(lambda: set(server.get("/history")) - before, lambda: page.inner_text("body"), look)
    (new,) = set(server.get("/history")) - before
    return server.wait(new), seen


def look(page: "Page", number: int) -> np.ndarray:
    """What the page shows where a node lies, below its head: [height, width, 3]."""
    place = page.evaluate(PLACE, number)
    with Image.open(io.BytesIO(page.screenshot(clip=place))) as picture:
        head = round(HEAD * place["width"] / page.evaluate("n => app.graph.getNodeById(n).size[0]", number))
        return np.asarray(picture.convert("RGB"))[head:].astype(int)


def until_changed(page: "Page", before: Mapping[int, np.ndarray], share: float) -> None:
    """Wait until nodes look different from `before`, each in more than this share of its pixels."""

    def shares() -> dict[int, float]:
        return {number: changed(picture, look(page, number)) for number, picture in before.items()}

    until(
        lambda: all(found > share for found in shares().values()),
        lambda: f"not more than {share} of each node has changed: {shares()}",
        lambda: page.wait_for_timeout(100),
    )


def columns(page: "Page") -> list[list[str]]:
    """The lines of each text in columns: Preview as Text shows it as code, or in new frontends as it is."""
    texts = page.evaluate(TEXTS)
    return [textwrap.dedent(text).splitlines() for text in texts]


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels that look different."""
    return float((np.abs(before - after).max(-1) > 16).mean())
