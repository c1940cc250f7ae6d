"""The board's curves in a real browser."""

import re
import time

import pytest
from board_page import look_at, opened, poll, until, until_drawn, window
from board_process import board, do_iterations
from run_folders import Run, write

from trainer.lock import exclusive

BREAK_OFF = re.compile(r"ERR_CONNECTION_REFUSED|WebSocket connection to .* failed")  # while there is no server


def test_curves_of_both_rewards_are_drawn_and_small_ones_below(page):
    look_at(page, "Apples")
    page.locator(".ng-main-chart canvas").wait_for()
    legend = " ".join(page.locator(".ng-main-chart .ng-legend-item").all_inner_texts())
    assert "tiny-clip " in legend
    assert "tiny-clip-heldout (held out)" in legend
    for colour in ("--ng-c0", "--ng-c1"):
        until_drawn(page, ".ng-main-chart canvas", colour, 200)
    charts = page.locator(".ng-small").evaluate_all("all => all.map((one) => one.dataset.chart)")
    assert charts[:3] == ["gradient norm", "loss", "clip fraction"]
    assert "device memory" not in charts  # the run has none
    assert {"|ρ − 1| at the start", "learning rate", "strength"}.isdisjoint(charts)  # nothing but rounding, or constant
    until_drawn(page, "[data-chart=loss] canvas", "--ng-c0", 50)


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


def test_ten_thousand_iterations_are_drawn_and_a_window_in_detail(page):
    look_at(page, "long")
    until(page, "document.querySelector('.ng-main-chart canvas')?.width > 0")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "from=" in request.url else None)
    box = page.locator(".ng-main-chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    with page.expect_request("**/curves?*from=*"):
        page.mouse.wheel(0, -2500)
    page.wait_for_timeout(400)  # for a second one, which there must not be
    (url,) = asked
    first, last = (int(n) for n in re.search(r"from=(\d+)&to=(\d+)", url).groups())
    assert first % 16 == 0  # whole buckets of the coarse curve
    assert (last + 1) % 16 == 0
    assert 0 < first < 5000 < last < 9999


@pytest.mark.parametrize("width", [1100, 420])
def test_charts_stay_in_place_when_the_pictures_of_the_candidates_come(chromium, server, errors, width):
    held = []

    def hold(route) -> None:
        held.append(route)

    for page in opened(chromium, server.url, errors, viewport={"width": width, "height": 900}):
        page.route("**/runs/apples/groups**", hold)
        look_at(page, "Apples")
        charts = [page.locator(f"{chart} .u-over") for chart in (".ng-main-chart", "[data-chart=loss]")]
        before = [chart.bounding_box() for chart in charts]
        poll(page, lambda: held, "the pictures were never asked for")
        assert page.locator(".ng-thumb").count() == 0
        page.unroute("**/runs/apples/groups**", hold)  # which lets go what is held
        page.locator(".ng-thumb").first.wait_for()
        page.wait_for_timeout(100)
        assert [chart.bounding_box() for chart in charts] == before
    assert errors == []


def test_a_run_without_pictures_leaves_no_room_for_them(chromium, tmp_path, errors):
    write(tmp_path / "blind", Run(iterations=5, tiles_every=0))
    with board(tmp_path) as server:
        for page in opened(chromium, server.url, errors):
            look_at(page, "blind")
            page.locator(".ng-main-chart .u-over").wait_for()
            until(page, "document.querySelector('.ng-strip').hidden")
            chart, curves = (page.locator(selector).bounding_box() for selector in (".ng-main-chart", ".ng-curves"))
            assert chart["width"] == curves["width"]
    assert errors == []


def test_the_cursor_in_a_chart_shows_the_candidates_of_its_iteration(page):
    look_at(page, "Apples")
    page.locator(".ng-strip p", has_text="Iteration 39,").wait_for()
    box = page.locator(".ng-main-chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 10 / 39, box["y"] + 60)
    page.locator(".ng-strip p", has_text="Iteration 10,").wait_for()
    page.mouse.click(box["x"] + box["width"] * 10 / 39, box["y"] + 60)
    page.locator("[data-tab=neighborhood]").click()
    assert page.locator(".ng-iteration").input_value() == "10"


def test_two_runs_are_compared_in_one_chart(page):
    page.locator("[data-tab=runs]").click()
    look_at(page, "Apples", "runs")
    page.locator(".ng-run", has_text="pears").get_by_role("checkbox").check()
    page.locator("[data-tab=curves]").click()
    page.locator(".ng-main-chart .ng-legend-item", has_text="pears").first.wait_for()
    names = [t.rsplit(" ", 1)[0].strip() for t in page.locator(".ng-main-chart .ng-legend-item").all_inner_texts()]
    rewards = ("tiny-clip", "tiny-clip-heldout")
    assert names == [f"{run} · {reward}" for run in ("Apples", "pears") for reward in rewards]
    for colour in ("--ng-c0", "--ng-c1"):
        until_drawn(page, ".ng-main-chart canvas", colour, 200)
        until_drawn(page, "[data-chart=loss] canvas", colour, 50)
    page.reload()  # what was looked at is remembered
    page.locator("[data-tab=curves]").click()
    page.locator(".ng-main-chart .ng-legend-item", has_text="pears").first.wait_for()


def until_watched(page, folder, done: int) -> int:
    """Do iterations until one is shown as it comes: the board has looked at what was there before. Returns how many."""
    count, shown = [done], page.locator(".ng-count")

    def another() -> None:
        do_iterations(folder, range(count[0], count[0] + 1), 0.1)
        count[0] += 1
        page.wait_for_timeout(1000)

    before = shown.inner_text()
    poll(page, lambda: shown.inner_text() != before or another(), "no iteration was shown as it came")
    return count[0]


def test_iterations_appear_at_once_and_after_a_restart_of_the_server(chromium, runs, errors, tmp_path):
    folder = write(tmp_path / "live", Run(iterations=5, planned=900, state="running", prompts=("a",), tiles_every=0))
    with exclusive(str(folder.absolute()), "busy"):
        with board(tmp_path) as server:
            pages = opened(chromium, server.url, errors)
            page = next(pages)
            look_at(page, "live")
            page.locator(".ng-count", has_text="5 / 900").wait_for()
            following = until_watched(page, folder, 5)
            done = do_iterations(folder, range(following, following + 1), 0.9)
            page.locator(".ng-main-chart .ng-legend b", has_text=re.compile(r"^0\.[3-9]")).first.wait_for()
            print(f"shown {1000 * (time.monotonic() - done):.0f} ms after the iteration's end")
            page.locator(".ng-count", has_text=f"{following + 1} / 900").wait_for()
            port = server.port
        page.get_by_text("Connection lost").wait_for()
        do_iterations(folder, range(following + 1, following + 4), 0.8)
        with board(tmp_path, port):
            page.get_by_text("Connection lost").wait_for(state="hidden")
            page.locator(".ng-count", has_text=f"{following + 4} / 900").wait_for()
            do_iterations(folder, range(following + 4, following + 5), 0.7)
            page.locator(".ng-count", has_text=f"{following + 5} / 900").wait_for()
            assert [e for e in errors if not BREAK_OFF.search(e)] == []
            pages.close()
