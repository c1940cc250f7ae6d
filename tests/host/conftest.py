"""A running ComfyUI with the pack in it, and a browser on it.

Where either is missing these tests skip and say why; with CI=true they fail. `python dev.py test` installs both.
"""

from collections.abc import Iterator
from pathlib import Path

import browser
import comfy_install
import pytest
from comfy_server import PACK, ComfyServer
from needed import required
from shared_server import TEST_PACKS, SharedServer


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of ComfyUI."""
    return required(comfy_install.find)


@pytest.fixture(scope="session")
def shared_server(comfyui, tmp_path_factory) -> Iterator[SharedServer]:
    """ComfyUI with our pack and the test-only ones."""
    base = tmp_path_factory.mktemp("comfyui")
    own_locks = {"TMPDIR": str(base)}  # so that tests that run side by side do not wait for one device
    with SharedServer(comfyui, PACK | TEST_PACKS, base=base, environment=own_locks) as running:
        yield running


@pytest.fixture(scope="session")
def shared_card(comfyui, tmp_path_factory) -> Iterator[SharedServer]:
    """ComfyUI on the card made of the CPU."""
    from card_server import PACKS, CardServer

    base = tmp_path_factory.mktemp("card")
    with CardServer(comfyui, PACKS, base=base, environment={"TMPDIR": str(base)}) as running:
        yield running


@pytest.fixture(scope="module")
def server(shared_server) -> SharedServer:
    """The ComfyUI of all modules, as after its start."""
    shared_server.renew()
    return shared_server


@pytest.fixture(scope="module")
def server_on_card(shared_card) -> Iterator[SharedServer]:
    """Another one, with files to train from; no two streams touch the same memory without a wait between them."""
    from card_server import write_inputs

    shared_card.renew()
    write_inputs(shared_card.base)
    yield shared_card
    assert shared_card.card()["races"] == 0


@pytest.fixture(scope="module")
def bare_server(comfyui, tmp_path_factory) -> Iterator[ComfyServer]:
    """ComfyUI with the test-only packs alone."""
    base = tmp_path_factory.mktemp("comfyui-bare")
    with ComfyServer(comfyui, TEST_PACKS, base=base) as running:
        yield running


@pytest.fixture(scope="session")
def fill(tmp_path_factory) -> str:
    """The embedded model as it would see picture and mask, like FLUX.1-Fill, and pay them no heed."""
    from tiny_files import write_fill

    return str(write_fill(tmp_path_factory.mktemp("models") / "fill"))


@pytest.fixture(scope="module")
def chromium():
    """A browser. It ends with the module, as no other asyncio loop can run in the meantime."""
    with browser.launched(required(browser.find)) as running:
        yield running


@pytest.fixture
def console() -> list[str]:
    """The page's errors so far, uncaught exceptions included, without those that ComfyUI's frontend makes by itself."""
    return []


@pytest.fixture
def page(chromium, server, console):
    """A Playwright page on `server`, with the app and our extension loaded."""
    page = browser.open_page(chromium, server.url, console)
    yield page
    page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure comes with a picture of the page and the end of ComfyUI's log."""
    report = yield
    if report.failed and "page" in item.funcargs:
        report.sections.append(("the page", str(browser.screenshot(item.funcargs["page"], item.name))))
    if report.failed and "server" in item.funcargs:
        report.sections.append(("ComfyUI's log", "\n".join(item.funcargs["server"].log().splitlines()[-30:])))
    return report
