"""Where the nodes and groups of a workflow lie: in its file, and on the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

Box = tuple[float, float, float, float]  # left, top, right, bottom
TITLE = 30  # above a node's position
LOOKS = {"classic": False, "nodes-2": True}  # how nodes are drawn -> the setting
SETTING = "Comfy.VueNodes.Enabled"
LOAD = """async ([graph, setting, modern]) => {
    await app.ui.settings.setSettingValueAsync(setting, modern)
    await app.loadGraphData(graph)
}"""
ALL_INPUTS = """() => {
    for (const node of app.graph.nodes)
        if (node.widgets?.some(widget => widget.options?.advanced)) node.showAdvanced = true
}"""
# Each node as it is drawn, once nothing has moved for some frames. Elements of Nodes 2.0 tell by themselves; a control
# that stands out of its node makes it larger. A classic node takes what its widgets need, at least.
SHOWN = """async modern => {
    const measure = () => {
        const { scale, offset } = app.canvas.ds, at = app.canvas.canvas.getBoundingClientRect()
        const onGraph = ({ left, top, right, bottom }) => [
            (left - at.left) / scale - offset[0], (top - at.top) / scale - offset[1],
            (right - at.left) / scale - offset[0], (bottom - at.top) / scale - offset[1],
        ]
        const around = (a, b) => a.map((edge, i) => (i < 2 ? Math.min : Math.max)(edge, b[i]))
        return app.graph.nodes.map(node => {
            const element = document.querySelector(`[data-node-id="${node.id}"]`)
            if (modern !== Boolean(element)) return null
            if (element) {
                const controls = [...element.querySelectorAll("input, textarea, button, [role=combobox]")]
                const seen = controls.filter(control => control.checkVisibility() && control.offsetHeight)
                return [Number(node.id), [element, ...seen].map(e => onGraph(e.getBoundingClientRect())).reduce(around)]
            }
            const [x, y] = node.pos, [width, height] = node.size, least = node.computeSize()
            return [Number(node.id), [x, y - 30, x + width, y + Math.max(height, least[1])]]
        })
    }
    for (let frames = 0, last = ""; frames < 6; ) {
        await new Promise(requestAnimationFrame)
        const now = measure(), text = JSON.stringify(now)
        frames = text === last && !now.includes(null) ? frames + 1 : 0
        last = text
    }
    return measure()
}"""


def shown(page: "Page", graph: Mapping[str, Any], look: str, *, all_inputs: bool = True) -> dict[int, Box]:
    """Open a workflow in one of the looks; where its nodes then are, titles included.

    Args:
        all_inputs: also those that ComfyUI hides as advanced.
    """
    page.evaluate(LOAD, [graph, SETTING, LOOKS[look]])
    if all_inputs:
        page.evaluate(ALL_INPUTS)
    return {number: tuple(found) for number, found in page.evaluate(SHOWN, LOOKS[look])}


def box(item: Mapping[str, Any]) -> Box:
    """Of a node, title included, or of a group."""
    if "bounding" in item:
        x, y, width, height = item["bounding"]
        return x, y, x + width, y + height
    (x, y), (width, height) = item["pos"], item["size"]
    return x, y - TITLE, x + width, y + height


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def overlapping(boxes: Mapping[int, Box]) -> list[tuple[int, int]]:
    return [(a, b) for a in boxes for b in boxes if a < b and overlap(boxes[a], boxes[b])]
