"""The board's runs, candidates and other views in a real browser."""

import json

import pytest
from board_page import look_at, opened, until
from board_process import board
from run_folders import MARKUP, Run, write

from trainer.store.writer import open_store


def test_tiles_come_best_first_and_name_rank_and_advantage(page):
    look_at(page, "Apples", "neighborhood")
    page.locator(".ng-tile[data-candidate]").first.wait_for()
    words = page.locator(".ng-tile[data-candidate] .ng-advantage b").all_inner_texts()
    advantages = [float(w.replace("−", "-")) for w in words]
    assert len(advantages) == 12
    assert advantages == sorted(advantages, reverse=True)
    assert page.locator(".ng-is-anchor").count() == 4
    page.get_by_label("Order").select_option("index")
    shown = page.locator(".ng-tile[data-candidate]").evaluate_all("all => all.map((li) => li.dataset.candidate)")
    assert shown == [str(i) for i in range(12)]
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
    # the strength since iteration 30
    inputs = {"seed": str(2**62 + 1 + 39), "strength": 0.25, "group_size": 12, "candidate": 3}
    assert node == {"class_type": "NeighborGRPOCandidateNoise", "inputs": inputs}


def test_pictures_of_fixed_prompts_stand_before_and_after(page):
    look_at(page, "Apples", "neighborhood")
    pair = page.locator(".ng-evaluation").first
    pair.wait_for()
    assert pair.locator("figcaption").all_inner_texts() == ["after 0", "after 40"]


def test_a_run_says_which_pictures_are_no_longer_kept(chromium, tmp_path, errors):
    folder = write(tmp_path / "thinned", Run(iterations=12))
    with open_store(folder, keep_tiles="every 5") as store, store.database:
        store.retention.add(11, [])
    with board(tmp_path) as server:
        for page in opened(chromium, server.url, errors):
            look_at(page, "thinned", "neighborhood")
            page.get_by_text("pictures of 4 of 12 iterations").wait_for()
            page.locator(".ng-iteration").fill("7")
            page.locator(".ng-iteration").press("Enter")
            page.get_by_text("The pictures of this iteration are no longer kept (run.keep_tiles).").wait_for()
            assert page.locator(".ng-no-picture").all_inner_texts() == ["no longer kept"] * 12
            assert page.locator(".ng-score b").count() == 24
            page.locator(".ng-tile[data-candidate] button").first.click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_role("button", name="Copy noise as node").wait_for()
            assert dialog.locator("img:visible, select:visible").count() == 0
            page.keyboard.press("Escape")
            page.get_by_label("Next iteration with pictures").click()
            until(page, "document.querySelector('.ng-iteration').value === '10'")
            until(page, "document.querySelector('.ng-tile[data-candidate] img')?.naturalWidth === 64")
            page.locator("[data-tab=curves]").click()
            page.locator(".ng-thumb img").first.wait_for()
    assert errors == []


def test_a_picture_that_is_removed_while_it_is_looked_at_leaves_a_word(chromium, tmp_path, errors):
    write(tmp_path / "run", Run(iterations=1, prompts=("a",)))
    with board(tmp_path) as server:
        for page in opened(chromium, server.url, errors):
            page.route("**/tiles/0/0/3", lambda route: route.fulfill(status=404))
            look_at(page, "run", "neighborhood")
            page.locator("[data-candidate='3'] .ng-no-picture").wait_for()
            assert page.locator(".ng-tile[data-candidate] img").count() == 11
    assert [error for error in errors if "404" not in error] == []


def test_distances_are_drawn_and_every_anchor_has_its_arrow(page):
    look_at(page, "Apples", "distances")
    page.locator(".ng-heat").wait_for()
    colours = page.evaluate(
        """() => {
            const canvas = document.querySelector(".ng-heat");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const cell = (i) => 4 * ((Math.floor(i / 12) * 32 + 9) * canvas.width + (i % 12) * 32 + 9);
            return new Set(Array.from({ length: 144 }, (_, i) => data.slice(cell(i), cell(i) + 3).join())).size;
        }"""
    )
    assert colours > 20
    assert page.locator(".ng-dot").count() == 12
    assert page.locator(".ng-ring").count() == 4
    assert page.locator(".ng-arrow").count() == 4
    page.locator(".ng-dot").nth(5).focus()
    assert "Candidate 5" in page.locator(".ng-map .ng-under").nth(1).inner_text()


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
    print(f"scrolled by 120 pixels in {steps[30]:.0f} ms a frame (median of 60)")


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
    page.locator(".ng-reason", has_text="not under way").wait_for()


def test_the_strengths_of_the_lora_are_shown_and_how_to_measure_them(page):
    look_at(page, "Apples", "diagnosis")
    page.locator(".ng-strength", has_text="python -m trainer strength RUN").wait_for()
    look_at(page, "pears", "diagnosis")
    page.locator(".ng-strength", has_text="Best at 0.8: of the LoRA after 12 iterations, on 8 pictures").wait_for()
    assert page.locator(".ng-strengths tr").count() == 4
    best = page.locator(".ng-strengths .ng-best")
    assert best.locator("th, td").all_inner_texts() == ["0.8", "0.7 (+0.2 ± 0.01)", "0.53 (+0.03 ± 0.01)"]


def test_tabs_are_walked_by_arrow_keys(page):
    page.locator("[data-tab=runs]").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tab") == "curves"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.tab") == "diagnosis"
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Diagnosis"
    assert page.locator("[role=tab][tabindex='0']").count() == 1


@pytest.mark.parametrize("width", [200, 320, 420, 1400])
def test_nothing_is_wider_than_the_panel(chromium, server, errors, width):
    for page in opened(chromium, server.url, errors, viewport={"width": width, "height": 800}):
        look_at(page, "Apples")
        edges = page.locator("[role=tab]").evaluate_all("tabs => tabs.map(tab => tab.getBoundingClientRect().right)")
        assert len(edges) == 6
        assert max(edges) <= width
        for tab in ("runs", "curves", "neighborhood", "distances", "control", "diagnosis"):
            page.locator(f"[data-tab={tab}]").click()
            page.wait_for_timeout(250)
            assert page.evaluate("document.querySelector('.ng-body').scrollWidth") <= width, tab
    assert errors == []
