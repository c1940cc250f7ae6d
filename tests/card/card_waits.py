"""What makes the host wait for the card, and where in the code that was."""

import sys
from pathlib import Path
from typing import NamedTuple

OWN = {str(path) for path in Path(__file__).parent.glob("card*.py")}
FOREIGN = ("site-packages", "dist-packages", "<frozen", "<string>")


class Wait(NamedTuple):
    """One wait, and the innermost line of the project that led to it."""

    kind: str  # "item", "to host", "to card", "nonzero", ...
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.file}:{self.line} ({self.function})"


waits: list[Wait] = []


def waited(kind: str) -> None:
    waits.append(Wait(kind, *_place()))


def _place() -> tuple[str, int, str]:
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path not in OWN and not any(part in path for part in FOREIGN):
            return "/".join(Path(path).parts[-2:]), frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
    return "", 0, ""
