"""The help pages of the nodes, web/docs/<node id>.md, read back as data."""

import re
from dataclasses import dataclass
from pathlib import Path

from comfy_install import ROOT

FOLDER = ROOT / "web" / "docs"
HEADINGS = ["How to use it", "Inputs", "Outputs", "When it goes wrong", "In the paper"]  # every page has them

# - **name**: default · range<br>
#   what it does, on one line or several
INPUT = re.compile(r"^- \*\*(\w+)\*\*: (.+?) · (.+?)<br>\n((?:  \S.*\n)+)", re.MULTILINE)
OUTPUT = re.compile(r"^- \*\*(\w+)\*\*: (\S.*\n(?:  \S.*\n)*)", re.MULTILINE)
TROUBLE = re.compile(r"^- (.+)<br>\n((?:  \S.*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Input:
    name: str
    default: str  # "needed" or "optional" for a socket
    range: str
    effect: str


@dataclass(frozen=True)
class Page:
    title: str
    sections: dict[str, str]  # heading -> text; "" is what stands above the first one
    inputs: list[Input]
    outputs: dict[str, str]  # name -> what it is
    troubles: dict[str, str]  # what is seen -> what to do

    @property
    def quotes(self) -> list[str]:
        """The error messages that the page explains, "…" for what differs from case to case."""
        return [quote for seen in self.troubles for quote in re.findall(r'"(.+?)"', seen)]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def path(name: str) -> Path:
    return FOLDER / f"{name}.md"


def read(name: str) -> Page:
    """Raises ValueError where a line of a list does not have the list's form."""
    title, _, text = path(name).read_text("utf-8").partition("\n")
    intro, *rest = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    sections = {"": intro, **dict(zip(rest[::2], rest[1::2], strict=True))}
    inputs, outputs, troubles = (
        items(pattern, sections.get(heading, ""), f"{name}, {heading}")
        for pattern, heading in ((INPUT, "Inputs"), (OUTPUT, "Outputs"), (TROUBLE, "When it goes wrong"))
    )
    return Page(title.removeprefix("# "), sections, [Input(*i) for i in inputs], dict(outputs), dict(troubles))


def items(pattern: re.Pattern, section: str, where: str) -> list[tuple[str, ...]]:
    found = pattern.findall(section)
    written = re.findall(r"^- .*", section, re.MULTILINE)
    if len(found) != len(written):
        raise ValueError(f"{where}: {len(written)} items, {len(found)} of them in the form {pattern.pattern!r}")
    return [tuple(" ".join(part.split()) for part in item) for item in found]


def ticked(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)
