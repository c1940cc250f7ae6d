"""The board behind a proxy that serves it below a path."""

from board_page import opened
from board_process import board, do_iterations
from reverse_proxy import below
from run_folders import Run, write


def test_the_board_works_below_a_path_and_hears_of_iterations(chromium, tmp_path, errors):
    folder = write(tmp_path / "runs" / "pears", Run(iterations=5, planned=9, group_size=3))
    with board(tmp_path / "runs") as server, below(server.url, "/grpo/") as address:
        for page in opened(chromium, address, errors):
            page.get_by_role("button", name="pears", exact=True).click()
            page.locator(".ng-main-chart canvas").first.wait_for()
            page.locator(".ng-count", has_text="5 / 9").wait_for()
            picture = page.locator("img").first
            picture.wait_for()
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
            do_iterations(folder, range(5, 8), 0.5)
            page.locator(".ng-count", has_text="8 / 9").wait_for()
    assert errors == []
