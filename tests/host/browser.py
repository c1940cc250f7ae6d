"""A Chromium for the tests of the frontend, driven by Playwright."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_install import HOME, HostError
from patience import GUARD

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-proxy-server"]  # beside those that Playwright sets itself
APT = "apt-get install --yes --quiet --no-install-recommends chromium fonts-dejavu-core".split()

# What frontends say without any pack, in errors and warnings
NOISE = re.compile(
    # files that a new user has not got, and what a ComfyUI older than its frontend does not know
    r"status of 404 .*/(user\.css|favicon\.ico|api/userdata[/?].*|api/jobs\?.*)\)$"
    r"|^(\[Jobs API\] Error fetching jobs|Failed to fetch queue): JobsApiError: Failed to fetch jobs: 404"
    # early watchers
    r"|^ComfyApp graph accessed before initialization \(.*/assets/"
    r"|^TypeError: Cannot read properties of undefined \(reading 'id'\)\s+at onChange .*/assets/index-"
    # what ComfyUI's own Content-Security-Policy keeps from the network
    r"|^Connecting to 'https://(api\.comfy\.org|huggingface\.co)/.* violates the following Content Security Policy"
    r"|^Fetch API cannot load https://huggingface\.co/.* violates the document's Content Security Policy"
    # its own parts that it is about to replace
    r"|^\[ComfyUI\] The legacy queue/history menu is deprecated"
    r"|^\[MaskEditor\] ComfyApp\.open_maskeditor is deprecated"
    r"|^input\.link is deprecated\..* undefined \(.*/assets/litegraph-"
    r"|^WARNING: Invalid layout total size: .* \(.*/assets/vendor-reka-ui-"
)
HEARD = ("error", "warning")
NO_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"  # the advertisement for Nodes 2.0

# True as soon as a visitor can use the page; the mark is the last thing that the pack's `setup` leaves (web/main.js)
READY = "document.documentElement.dataset.neighborGrpo === 'ready' && window.app.graph && window.app.extensionManager"


def find() -> Path:
    """A Chromium or Chrome: CHROMIUM_PATH, the system's, or Playwright's own.

    Raises:
        HostError: none is there, or no Playwright to drive it; with the remedy.
    """
    if not importlib.util.find_spec("playwright"):
        raise HostError("the package playwright is missing: run `python dev.py test`, which installs it")
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        if not Path(named).is_file():
            raise HostError(f"CHROMIUM_PATH={named} is no file: correct it, or unset it to search")
        return Path(named)
    found = next(filter(None, map(shutil.which, NAMES)), None) or _playwrights_own()
    if not found:
        raise HostError("no Chromium: install it or Google Chrome, or run `python -m playwright install chromium`")
    return Path(found)


def install(say: Callable[[str], None]) -> Path:
    """Like `find`; where none is there and this is root on Debian, apt installs one.

    Raises:
        HostError: none is there and none can be installed.
    """
    try:
        return find()
    except HostError:
        if not _can_install():
            raise
    say("installing Chromium with apt")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "--quiet"], APT):
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise HostError(f"`{' '.join(command)}` failed: {reason}; install Chromium yourself")
    return find()


@contextmanager
def launched(executable: Path) -> "Iterator[Browser]":
    """The browser, with an empty profile. Inside the block no other asyncio loop can run in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


def open_page(chromium: "Browser", url: str, errors: list[str]) -> "Page":
    """A page on ComfyUI at `url`, when app and extension are loaded; its errors and warnings but NOISE join `errors`.

    Raises:
        HostError: it did not get there; with a picture of the page and what the console said.
    """
    from playwright.sync_api import Error

    def note(line: str) -> None:
        if not NOISE.search(line):
            errors.append(line)

    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(1000 * GUARD)
    page.add_init_script(NO_BANNER)
    page.on("console", lambda m: note(f"{m.text} ({m.location.get('url', '')})") if m.type in HEARD else None)
    page.on("pageerror", lambda error: note(error.stack or f"{error.name}: {error.message}"))
    try:
        page.goto(url)
        page.wait_for_function(READY)
    except Error as error:
        picture = screenshot(page, "not-ready")
        raise HostError(f"{url} is not ready ({error.message}), picture: {picture}, console: {errors}") from None
    return page


def screenshot(page: "Page", name: str) -> Path:
    """A picture of the page, in .comfy/screenshots."""
    path = HOME / "screenshots" / (re.sub(r"[^\w.-]+", "_", name) + ".png")
    page.screenshot(path=path)
    return path


def _playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def _can_install() -> bool:
    """Whether this is root on Debian, whose chromium is a real package (Ubuntu's is a snap), and apt would help."""
    release = Path("/etc/os-release")
    debian = release.is_file() and re.search(r'^ID="?debian"?$', release.read_text("utf-8"), re.MULTILINE)
    playwright = importlib.util.find_spec("playwright")
    return bool(debian and playwright) and os.geteuid() == 0 and "CHROMIUM_PATH" not in os.environ
