"""A running ComfyUI with the pack in it, and a browser on it.

Where either is missing these tests skip and say why; with CI=true they fail. `python dev.py test` installs both.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import browser
import comfy_install
import pytest
import torch
from comfy_server import PACK, ComfyServer
from diffusers import FluxTransformer2DModel
from needed import required

from trainer import tiny

HERE = Path(__file__).parent
TEST_PACKS = {name: HERE / name for name in ("tiny_flux_shim", "probe")}


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of ComfyUI."""
    return required(comfy_install.find)


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory) -> Iterator[ComfyServer]:
    """ComfyUI with our pack and the test-only ones."""
    base = tmp_path_factory.mktemp("comfyui")
    own_locks = {"TMPDIR": str(base)}  # so that tests that run side by side do not wait for one device
    with ComfyServer(comfyui, PACK | TEST_PACKS, base=base, environment=own_locks) as running:
        yield running


@pytest.fixture(scope="module")
def bare_server(comfyui, tmp_path_factory) -> Iterator[ComfyServer]:
    """ComfyUI with the test-only packs alone."""
    base = tmp_path_factory.mktemp("comfyui-bare")
    with ComfyServer(comfyui, TEST_PACKS, base=base) as running:
        yield running


@pytest.fixture(scope="module")
def fill(tmp_path_factory) -> str:
    """The embedded model as it would see picture and mask, like FLUX.1-Fill, and pay them no heed."""
    folder = shutil.copytree(tiny.FLUX, tmp_path_factory.mktemp("models") / "fill")
    plain = FluxTransformer2DModel.from_pretrained(tiny.FLUX, subfolder="transformer")
    model = FluxTransformer2DModel.from_config({**plain.config, "in_channels": 384, "out_channels": 64})
    weights = plain.state_dict()
    weights["x_embedder.weight"] = torch.nn.functional.pad(weights["x_embedder.weight"], (0, 320))
    model.load_state_dict(weights)
    model.save_pretrained(folder / "transformer")
    return str(folder)


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
