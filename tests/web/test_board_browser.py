"""The panel on the board, in a real browser."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from board_process import board, do_iterations
from needed import required
from run_folders import MARKUP, Run, write

from trainer.lock import exclusive

WAIT = 15_000  # milliseconds
BREAK_OFF = re.compile(r"ERR_CONNECTION_REFUSED|WebSocket connection to .* failed")  # while there is no server


@pytest.fixture(scope="module")
def chromium():
    with browser.launched(required(browser.find)) as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    now = time.time()
    write(folder / "apples", Run(iterations=40, evaluations=(0, 40), started=now - 300, info={"title": "Apples"}))
    write(folder / "pears", Run(iterations=30, seed=1, started=now - 200))
    markup = Run(iterations=4, planned=4, prompts=(MARKUP, MARKUP), info={"title": MARKUP}, evaluations=(0, 4))
    write(folder / "markup", markup)
    write(folder / "long", Run(iterations=10_000, planned=10_000, tiles_every=5000, started=now - 400))
    crowd = Run(iterations=1, planned=1, prompts=tuple(f"prompt {i}" for i in range(84)), evaluations=())
    write(folder / "crowd", crowd)
    return folder


@pytest.fixture(scope="module")
def server(runs):
    with board(runs) as running:
        yield running


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(chromium, server, errors) -> Iterator[object]:
    yield from opened(chromium, server.url, errors)
    assert errors == []


def opened(chromium, url: str, errors: list[str], **context: object) -> Iterator[object]:
    view = {"viewport": {"width": 1100, "height": 900}} | context
    inside = chromium.new_context(**view)
    page = inside.new_page()
    page.set_default_timeout(WAIT)
    page.on("console", lambda m: errors.append(f"{m.text} {m.location.get('url')}") if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(error.stack or error.message))
    page.on("dialog", lambda dialog: errors.append(f"a dialog says {dialog.message!r}"))
    page.goto(url)
    page.locator(".ng-run").first.wait_for()
    yield page
    inside.close()


def until(page, expression: str) -> None:
    """Wait until JavaScript says true. (The board's Content-Security-Policy forbids Playwright's own way.)"""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"this never became true: {expression}"
        page.wait_for_timeout(20)


def look_at(page, name: str, tab: str = "curves") -> None:
    page.locator("[data-tab=runs]").click()
    page.get_by_role("button", name=name, exact=True).click()
    page.locator(f"[data-tab={tab}]").click()


def ink(page, selector: str, colour: str) -> int:
    """Pixels of a chart whose colour is near a CSS variable's."""
    return page.evaluate(
        """([selector, name]) => {
            const canvas = document.querySelector(selector);
            const wanted = getComputedStyle(canvas).getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((v) => parseInt(v, 16));
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] > 128 && wanted.every((v, c) => Math.abs(v - data[i + c]) < 12)) count++;
            return count;
        }""",
        [selector, colour],
    )


def window(page) -> list[float]:
    """The iterations that the large chart shows; empty while it shows all."""
    return [float(n) for n in (page.locator(".ng-main-chart .ng-chart").get_attribute("data-range") or "").split()]


def test_curves_of_both_rewards_are_drawn_and_small_ones_below(page):
    look_at(page, "Apples")
    page.locator(".ng-main-chart canvas").wait_for()
    page.wait_for_timeout(200)
    legend = " ".join(page.locator(".ng-main-chart .ng-legend-item").all_inner_texts())
    assert "tiny-clip " in legend
    assert "tiny-clip-heldout (held out)" in legend
    for colour in ("--ng-c0", "--ng-c1"):
        assert ink(page, ".ng-main-chart canvas", colour) > 200
    charts = page.locator(".ng-small").evaluate_all("all => all.map((one) => one.dataset.chart)")
    assert charts[:3] == ["loss", "gradient norm", "clip fraction"]
    assert "device memory" not in charts  # the run has none
    assert ink(page, "[data-chart=loss] canvas", "--ng-c0") > 50


def test_wheel_drag_and_keys_zoom_all_charts_and_a_double_click_shows_all(page):
    look_at(page, "Apples")
    over = page.locator(".ng-main-chart .u-over")
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.wheel(0, -400)
    until(page, "document.querySelector('.ng-main-chart .ng-chart').dataset.range")
    first, last = window(page)
    assert 0 < first < 19.5 < last < 39
    assert page.locator("[data-chart=loss] .ng-chart").get_attribute("data-range") == f"{first:.0f} {last:.0f}"
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 60)
    assert window(page) == []
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    page.mouse.up()
    assert window(page) == pytest.approx([0.25 * 39, 0.5 * 39], abs=1)
    page.locator(".ng-main-chart .ng-plot").press("0")
    assert window(page) == []
    page.locator(".ng-main-chart .ng-plot").press("+")
    assert window(page) == pytest.approx([9.75, 29.25], abs=0.5)


def test_two_fingers_zoom(chromium, server, errors):
    for page in opened(chromium, server.url, errors, has_touch=True, viewport={"width": 420, "height": 800}):
        look_at(page, "Apples")
        box = page.locator(".ng-main-chart .u-over").bounding_box()
        middle, y = box["x"] + box["width"] / 2, box["y"] + 60
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *places: float, session=session, y=y) -> None:
            points = [{"x": x, "y": y, "id": i} for i, x in enumerate(places)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", middle - 30, middle + 30)
        for spread in (45, 60, 90):
            touch("touchMove", middle - spread, middle + spread)
        touch("touchEnd")
        until(page, "document.querySelector('.ng-main-chart .ng-chart').dataset.range")
        first, last = window(page)
        assert last - first == pytest.approx(39 / 3, rel=0.35)
    assert errors == []


def test_ten_thousand_iterations_are_drawn_soon_and_a_window_in_detail(page):
    began = time.monotonic()
    look_at(page, "long")
    until(page, "document.querySelector('.ng-main-chart canvas')?.width > 0")
    assert time.monotonic() - began < 3
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "from=" in request.url else None)
    box = page.locator(".ng-main-chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.wheel(0, -2500)
    page.wait_for_timeout(800)
    (url,) = asked
    first, last = (int(n) for n in re.search(r"from=(\d+)&to=(\d+)", url).groups())
    assert first % 16 == 0  # whole buckets of the coarse curve
    assert (last + 1) % 16 == 0
    assert 0 < first < 5000 < last < 9999


def test_the_cursor_in_a_chart_shows_the_candidates_of_its_iteration(page):
    look_at(page, "Apples")
    box = page.locator(".ng-main-chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 10 / 39, box["y"] + 60)
    page.locator(".ng-strip p", has_text="Iteration 10,").wait_for()
    page.mouse.click(box["x"] + box["width"] * 10 / 39, box["y"] + 60)
    page.locator("[data-tab=neighborhood]").click()
    assert page.locator(".ng-iteration").input_value() == "10"


def test_tiles_come_best_first_and_name_rank_and_advantage(page):
    look_at(page, "Apples", "neighborhood")
    page.locator(".ng-tile[data-candidate]").first.wait_for()
    words = page.locator(".ng-tile[data-candidate] .ng-advantage b").all_inner_texts()
    advantages = [float(w.replace("−", "-")) for w in words]
    assert len(advantages) == 12
    assert advantages == sorted(advantages, reverse=True)
    assert page.locator(".ng-is-anchor").count() == 4
    page.get_by_label("Order").select_option("index")
    shown = page.locator(".ng-tile[data-candidate]").evaluate_all("all => all.map((li) => Number(li.dataset.candidate))")
    assert shown == list(range(12))
    until(page, "[...document.querySelectorAll('.ng-tile img')].slice(0, 4).every((i) => i.naturalWidth === 64)")


def test_the_base_noise_has_its_own_picture_and_the_scrubber_finds_it(page):
    look_at(page, "Apples", "neighborhood")
    page.locator(".ng-iteration").fill("30")
    page.locator(".ng-iteration").press("Enter")
    page.locator(".ng-base img").wait_for()
    until(page, "document.querySelector('.ng-base img').naturalWidth === 64")
    page.get_by_label("Previous iteration with pictures").click()
    until(page, "document.querySelector('.ng-iteration').value === '29'")
    page.locator(".ng-base").wait_for(state="detached")


def test_a_tile_is_enlarged_walked_through_and_laid_over_another(page):
    look_at(page, "Apples", "neighborhood")
    page.locator(".ng-tile[data-candidate] button").first.click()
    dialog = page.get_by_role("dialog")
    first = dialog.locator("img").first.get_attribute("src")
    page.keyboard.press("ArrowRight")
    second = dialog.locator("img").first.get_attribute("src")
    assert first != second
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("img").first.get_attribute("src") == first
    choice = dialog.get_by_label("Compare with")
    choice.select_option(index=1)
    seam = dialog.get_by_label("How much of the first picture")
    seam.fill("25")
    assert dialog.locator(".ng-over").evaluate("image => image.style.clipPath") == "inset(0px 0px 0px 25%)"
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_a_candidates_noise_is_copied_as_a_node_with_its_whole_seed(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    look_at(page, "Apples", "neighborhood")
    page.locator(".ng-tile[data-candidate='3'] button").click()
    page.get_by_role("button", name="Copy noise as node").click()
    page.get_by_text("Copied.").wait_for()
    node = json.loads(page.evaluate("navigator.clipboard.readText()"))["1"]
    inputs = {"seed": str(2**62 + 1 + 39), "strength": 0.25, "group_size": 12, "candidate": 3, "width": 64, "height": 64}
    assert node == {"class_type": "NeighborGRPOCandidateNoise", "inputs": inputs | {"strength": node["inputs"]["strength"]}}


def test_pictures_of_fixed_prompts_stand_before_and_after(page):
    look_at(page, "Apples", "neighborhood")
    pair = page.locator(".ng-evaluation").first
    pair.wait_for()
    assert pair.locator("figcaption").all_inner_texts() == ["after 0", "after 40"]


def test_distances_are_drawn_and_every_anchor_has_its_arrow(page):
    look_at(page, "Apples", "distances")
    page.locator(".ng-heat").wait_for()
    colours = page.evaluate(
        "(() => { const c = document.querySelector('.ng-heat'); const d = c.getContext('2d').getImageData(0, 0, c.width, "
        "c.height).data; return new Set(Array.from({ length: 144 }, (_, i) => { const at = 4 * ((Math.floor(i / 12) * 32 + 9)"
        " * c.width + (i % 12) * 32 + 9); return d.slice(at, at + 3).join(); })).size; })()"
    )
    assert colours > 20
    assert page.locator(".ng-dot").count() == 12
    assert page.locator(".ng-ring").count() == 4
    assert page.locator(".ng-arrow").count() == 4
    page.locator(".ng-dot").nth(5).focus()
    assert "Candidate 5" in page.locator(".ng-map .ng-under").nth(1).inner_text()


def test_two_runs_are_compared_in_one_chart(page):
    page.locator("[data-tab=runs]").click()
    look_at(page, "Apples", "runs")
    page.locator(".ng-run", has_text="pears").get_by_role("checkbox").check()
    page.locator("[data-tab=curves]").click()
    page.locator(".ng-main-chart .ng-legend-item", has_text="pears").first.wait_for()
    page.wait_for_timeout(200)
    names = [t.rsplit(" ", 1)[0].strip() for t in page.locator(".ng-main-chart .ng-legend-item").all_inner_texts()]
    assert names == [f"{run} · {reward}" for run in ("Apples", "pears") for reward in ("tiny-clip", "tiny-clip-heldout")]
    for colour in ("--ng-c0", "--ng-c1"):
        assert ink(page, ".ng-main-chart canvas", colour) > 200
        assert ink(page, "[data-chart=loss] canvas", colour) > 50
    page.reload()  # what was looked at is remembered
    page.locator("[data-tab=curves]").click()
    page.locator(".ng-main-chart .ng-legend-item", has_text="pears").first.wait_for()


def test_markup_in_names_and_prompts_stays_text(page):
    assert page.get_by_role("button", name=MARKUP, exact=True).inner_text() == MARKUP
    for tab in ("curves", "distances", "control", "diagnosis", "neighborhood"):
        look_at(page, MARKUP, tab)
        page.wait_for_timeout(300)
        assert page.locator("h2.ng-title").inner_text() == MARKUP
        assert page.locator("img[onerror], img[src='x']").count() == 0
    page.locator(".ng-prompt", has_text=MARKUP).first.wait_for()
    page.locator(".ng-tile[data-candidate] button").first.click()
    assert page.get_by_role("dialog").locator(".ng-prompt").inner_text() == MARKUP


def test_a_thousand_tiles_are_there_and_only_those_in_sight_are_fetched(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/tiles/" in request.url else None)
    look_at(page, "crowd", "neighborhood")
    page.get_by_label("Prompt").select_option("all")
    until(page, "document.querySelectorAll('.ng-tile[data-candidate]').length === 84 * 12")
    page.wait_for_timeout(500)
    assert len(set(asked)) < 400
    steps = page.evaluate(
        """async () => {
            const body = document.querySelector(".ng-body");
            const times = [];
            let last = performance.now();
            for (let i = 0; i < 60; i++) {
                body.scrollTop += 120;
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - last);
                last = performance.now();
            }
            return times.sort((a, b) => a - b);
        }"""
    )
    assert steps[30] < 50  # milliseconds a frame, in the middle


def test_a_run_is_renamed_and_deleted_after_a_question(page, runs):
    write(runs / "to-delete", Run(iterations=2, planned=2, prompts=("a",), tiles_every=0))
    page.reload()
    row = page.locator(".ng-run", has_text="to-delete")
    row.locator("summary").click()
    row.get_by_role("button", name="Rename").click()
    field = page.get_by_label("Name of the run")
    field.fill("Old <b>news</b>")
    field.press("Enter")
    row = page.locator(".ng-run", has_text="Old <b>news</b>")
    row.wait_for()
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert (runs / "to-delete").is_dir()
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")
    assert not (runs / "to-delete").exists()
    assert list((runs / ".trash").iterdir())


def test_a_run_that_cannot_be_controlled_says_why(page):
    look_at(page, "Apples", "control")
    for name in ("Pause", "Save now", "Stop and save …"):
        assert page.get_by_role("button", name=name).is_disabled()
    assert "not under way" in page.locator(".ng-reason").inner_text()


def test_tabs_are_walked_by_arrow_keys(page):
    page.locator("[data-tab=runs]").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tab") == "curves"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.tab") == "diagnosis"
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Diagnosis"
    assert page.locator("[role=tab][tabindex='0']").count() == 1


@pytest.mark.parametrize("width", [320, 420, 1400])
def test_nothing_is_wider_than_the_panel(chromium, server, errors, width):
    for page in opened(chromium, server.url, errors, viewport={"width": width, "height": 800}):
        look_at(page, "Apples")
        for tab in ("runs", "curves", "neighborhood", "distances", "control", "diagnosis"):
            page.locator(f"[data-tab={tab}]").click()
            page.wait_for_timeout(250)
            assert page.evaluate("document.querySelector('.ng-body').scrollWidth") <= width, tab
    assert errors == []


def test_iterations_appear_within_a_second_and_after_a_restart_of_the_server(chromium, runs, errors, tmp_path):
    folder = write(tmp_path / "live", Run(iterations=5, planned=40, state="running", prompts=("a",), tiles_every=0))
    with exclusive(str(folder.absolute()), "busy"):
        with board(tmp_path) as server:
            pages = opened(chromium, server.url, errors)
            page = next(pages)
            look_at(page, "live")
            page.locator(".ng-count", has_text="5 / 40").wait_for()
            page.wait_for_timeout(1500)  # the board has looked at the folder
            done = do_iterations(folder, range(5, 6), 0.9)
            page.locator(".ng-legend b", has_text=re.compile(r"^0\.[3-9]")).first.wait_for()
            assert time.monotonic() - done < 1
            page.locator(".ng-count", has_text="6 / 40").wait_for()
            port = server.port
        page.get_by_text("Connection lost").wait_for()
        do_iterations(folder, range(6, 9), 0.8)
        with board(tmp_path, port):
            page.get_by_text("Connection lost").wait_for(state="hidden")
            page.locator(".ng-count", has_text="9 / 40").wait_for()
            do_iterations(folder, range(9, 10), 0.7)
            page.locator(".ng-count", has_text="10 / 40").wait_for()
            assert [e for e in errors if not BREAK_OFF.search(e)] == []
            pages.close()
