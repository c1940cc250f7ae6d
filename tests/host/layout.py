"""Where the nodes and groups of a saved workflow lie."""

Box = tuple[float, float, float, float]  # left, top, right, bottom
TITLE = 30  # above a node's position


def box(item: dict) -> Box:
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


def overlapping(boxes: dict[int, Box]) -> list[tuple[int, int]]:
    return [(a, b) for a in boxes for b in boxes if a < b and overlap(boxes[a], boxes[b])]
