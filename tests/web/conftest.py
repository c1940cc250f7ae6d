"""A board over artificial runs, and a browser on it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import pytest
from board_page import opened
from board_process import board
from needed import required
from run_folders import MARKUP, TRIED, Run, write

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHANGES = [{"iteration": 30, "strength": 0.25}]


@pytest.fixture(scope="module")
def chromium():
    """A browser. It ends with the module, as no other asyncio loop can run in the meantime."""
    with browser.launched(required(browser.find)) as running:
        yield running


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    now = time.time()
    write(
        folder / "apples",
        Run(iterations=40, evaluations=(0, 40), started=now - 300, info={"title": "Apples", "changes": CHANGES}),
    )
    write(folder / "pears", Run(iterations=30, seed=1, started=now - 200, info={"strengths": TRIED}))
    markup = Run(iterations=4, planned=4, prompts=(MARKUP, MARKUP), info={"title": MARKUP}, evaluations=(0, 4))
    write(folder / "markup", markup)
    write(folder / "long", Run(iterations=10_000, planned=10_000, tiles_every=5000, started=now - 400))
    crowd = Run(iterations=1, planned=1, prompts=tuple(f"prompt {i}" for i in range(84)), evaluations=())
    write(folder / "crowd", crowd)
    return folder


@pytest.fixture(scope="session")
def server(runs):
    with board(runs) as running:
        yield running


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(chromium, server, errors) -> Iterator["Page"]:
    yield from opened(chromium, server.url, errors)
    assert errors == []
