"""The help pages as files: complete, in one form, and quoting only messages that the code has. Needs no ComfyUI."""

import ast
import re

import help_pages
import pytest
from comfy_install import ROOT

from trainer.rewards.table import KINDS

SOURCES = sorted([*(ROOT / "nodes").glob("*.py"), *(ROOT / "trainer").rglob("*.py")])
GRAPH_WIDTH = 21  # characters that the help panel shows in a window of 1280 pixels

each_page = pytest.mark.parametrize("name", help_pages.names())


def messages() -> list[str]:
    """Every text in the code but the docstrings, "…" where an f-string puts a value."""
    texts = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.append(node.value)
    return texts


@pytest.fixture(scope="module")
def code() -> str:
    return "\0".join(messages())


def says(code: str, quote: str) -> bool:
    return re.search("[^\0]*".join(re.escape(part) for part in quote.split("…")), code) is not None


def node_ids() -> set[str]:
    found = {f"NeighborGRPO{kind.node.name}" for kind in KINDS.values() if kind.node}
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "node_id" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    return found


def test_every_node_has_a_page_and_every_page_a_node():
    assert set(help_pages.names()) == node_ids()


@each_page
def test_a_page_has_every_section_in_the_usual_order(name):
    page = help_pages.read(name)
    found = [heading for heading in page.sections if heading in help_pages.HEADINGS]
    assert found == help_pages.HEADINGS
    assert all(page.sections[heading].strip() for heading in help_pages.HEADINGS)
    assert page.sections[""].strip()
    assert page.troubles


@each_page
def test_a_quoted_message_is_one_that_the_code_has(name, code):
    unknown = [quote for quote in help_pages.read(name).quotes if not says(code, quote)]
    assert not unknown


def test_the_pages_quote_messages_at_all(code):
    assert sum(len(help_pages.read(name).quotes) for name in help_pages.names()) > 30
    assert not says(code, "this … is in no message")


@each_page
def test_a_graph_fits_the_panel_and_nothing_points_to_a_file(name):
    text = help_pages.path(name).read_text("utf-8")
    wide = [line for line in re.findall(r"^ {4}(\S.*|  .*)$", text, re.MULTILINE) if len(line) > GRAPH_WIDTH]
    assert not wide
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [
        link for link in links if not link.startswith("https://")
    ] == []  # the panel opens links from its own address


def test_the_metrics_that_the_step_page_explains_are_those_of_the_code(code):
    section = help_pages.read("NeighborGRPOStep").sections["What the metrics say"]
    explained = [name for line in re.findall(r"^- (.+?):", section, re.MULTILINE) for name in help_pages.ticked(line)]
    assert len(explained) > 5
    assert [name for name in explained if not re.search(f"\0{re.escape(name)}\0", code)] == []
