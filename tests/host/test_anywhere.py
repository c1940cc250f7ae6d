"""ComfyUI behind a proxy that serves it below a path, with the pack installed twice."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

import browser
import desk
import pytest
from comfy_server import DIRECT, PACK, ComfyServer
from patience import GUARD
from reverse_proxy import below
from run_folders import Run, write

if TYPE_CHECKING:
    from playwright.sync_api import Route

PANEL = "/neighbor_grpo/v1/runs"
TWICE = {**PACK, "z-another-copy": next(iter(PACK.values()))}


@pytest.fixture(scope="module")
def twice(comfyui, tmp_path_factory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("twice")
    write(base / "output" / "neighbor_grpo" / "pears", Run(iterations=5, planned=9, group_size=3))
    with ComfyServer(comfyui, TWICE, base=base, environment={"TMPDIR": str(base)}) as running:
        yield running


def answer(url: str, method: str = "GET", **headers: str) -> tuple[int, dict, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with DIRECT.open(urllib.request.Request(url, method=method, headers=named), timeout=GUARD) as reply:
            return reply.status, reply.headers, reply.read().decode("latin-1")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_the_second_copy_gives_way_and_says_so_in_one_line(twice):
    (line,) = [line for line in twice.log().splitlines() if "installed twice" in line]
    used, unused = re.search(r"custom_nodes.(\S+) is used, \S+custom_nodes.(\S+) is not; remove one", line).groups()
    assert {used, unused} == set(TWICE)
    assert [path for path in twice.get("/extensions") if path.endswith("/main.js") and "core" not in path] == [
        f"/extensions/{used}/main.js"
    ]
    train = twice.get("/object_info/NeighborGRPOTrain")["NeighborGRPOTrain"]
    assert train["python_module"] == f"custom_nodes.{used}"


def test_the_panel_works_below_a_path(twice, chromium):
    def corrected(route: "Route") -> None:
        """Some releases of ComfyUI's frontend draw nothing below a path, as their router begins at "/./"."""
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('?"/":"./"}', '?"/":location.pathname}'))

    errors = []
    with below(twice.url, "/comfy/") as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(1000 * GUARD)
        page.add_init_script(browser.NO_BANNER)
        page.on("console", lambda m: errors.append(f"{m.text} {m.location}") if m.type == "error" else None)
        page.route("**/assets/index-*.js", corrected)
        page.goto(address)
        page.wait_for_function(browser.READY)
        desk.tab(page, "neighbor-grpo").click()
        page.get_by_role("button", name="pears", exact=True).click()
        page.locator(".ng-count", has_text="5 / 9").wait_for()
        picture = page.locator(".ng-panel img").first
        picture.wait_for()
        assert picture.evaluate("image => image.decode().then(() => new URL(image.src).pathname)").startswith("/comfy/")
        page.close()
    assert [line for line in errors if "grpo" in line.lower()] == []


def test_a_foreign_page_or_name_is_refused_and_no_answer_is_another_pages_to_show(twice):
    assert answer(f"{twice.url}{PANEL}", Host="evil.example")[0] == 403
    assert answer(f"{twice.url}{PANEL}/pears", "DELETE", Origin="http://evil.example", Host="192.0.2.1:8188")[0] == 403
    assert answer(f"{twice.url}{PANEL}/pears", "DELETE", Sec_Fetch_Site="cross-site")[0] == 403
    for path in ("", "/pears", "/pears/tiles/0/0/0", "/gone", "/pears/export.csv"):
        _, headers, _ = answer(f"{twice.url}{PANEL}{path}")
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin", path
        assert headers["X-Content-Type-Options"] == "nosniff"
