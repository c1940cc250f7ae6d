"""A running ComfyUI with the pack in it, and a browser on it; tests marked `on_newest_too` open their page twice.

Where either is missing these tests skip and say why; with CI=true they fail. `python dev.py test` installs both.
"""

from collections.abc import Iterator
from pathlib import Path

import browser
import comfy_install
import newest_frontend
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
def newest(comfyui, tmp_path_factory) -> Iterator[ComfyServer]:
    """The same with the newest frontend, which may be too new to queue anything on an old ComfyUI."""
    base, frontend = tmp_path_factory.mktemp("newest"), required(newest_frontend.find)
    served = ["--front-end-root", str(frontend)]
    with SharedServer(comfyui, PACK | TEST_PACKS, base=base, arguments=served) as running:
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
    """The page's errors and warnings so far, uncaught exceptions too, without those of the frontend itself."""
    return []


def pytest_generate_tests(metafunc):
    """Tests marked `on_newest_too` open their page on `server`, and then on `newest`."""
    if metafunc.definition.get_closest_marker("on_newest_too"):
        metafunc.parametrize("site", ["server", "newest"], indirect=True)


@pytest.fixture
def site(request, server) -> ComfyServer:
    """Whose page it is: `server`'s, but see `pytest_generate_tests`."""
    return request.getfixturevalue(getattr(request, "param", "server"))


@pytest.fixture
def page(chromium, site, console):
    """A Playwright page on `site`, with the app and our extension loaded."""
    page = browser.open_page(chromium, site.url, console)
    yield page
    page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure comes with a picture of the page and the end of ComfyUI's log."""
    report = yield
    if report.failed and "page" in item.funcargs:
        report.sections.append(("the page", str(browser.screenshot(item.funcargs["page"], item.name))))
    server = item.funcargs.get("site") or item.funcargs.get("server")
    if report.failed and server:
        report.sections.append(("ComfyUI's log", "\n".join(server.log().splitlines()[-30:])))
    return report
