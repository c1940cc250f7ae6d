#!/usr/bin/env python3
"""What open panels cost a training: seconds an iteration with the panel open in one or five pages of ComfyUI.

usage: python tests/host/bench_panel.py [--rounds N]

One training in a real ComfyUI; blocks of iterations with pages that show the graph alone, and with as many pages that
show the panel too, follow each other, so that whatever else the machine does meets all of them. The browser runs on the
same machine and draws without a GPU; one of its pages has the focus, as on a desk. Prints the medians' ratios.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import browser
import comfy_install
import desk
import graphs
from comfy_server import PACK, ComfyServer

RUN, BLOCK, SETTLED = "bench", 10, 6
KINDS = [(pages, panel) for pages in (1, 5) for panel in (False, True)]
V1 = "/neighbor_grpo/v1/runs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each kind, default: 6")
    rounds = parser.parse_args().rounds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfy_install.find(), PACK, base=Path(base), environment={"TMPDIR": base}) as server,
        browser.launched(browser.find()) as chromium,
    ):
        server.queue(graphs.train(name=RUN, iterations=100_000, group_size=8, steps=6, micro_batch=16))
        wait_for(server, BLOCK)  # warm
        seconds = {kind: [] for kind in KINDS}
        for n in range(rounds):
            for kind in KINDS if n % 2 else KINDS[::-1]:
                seconds[kind].append(block(server, chromium, *kind))
        server.post("/interrupt", {})
    for pages in (1, 5):
        without, open_ = seconds[pages, False], seconds[pages, True]
        ratios = [a / b for a, b in zip(open_, without, strict=True)]
        print(
            f"{pages} pages: {statistics.median(without):.3f} s an iteration, {statistics.median(open_):.3f} s with "
            f"the panel open: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return 0


def block(server: ComfyServer, chromium, count: int, panel: bool) -> float:
    """The median of BLOCK iterations while `count` pages are open, with the panel on the run's curves or without."""
    pages = [browser.open_page(chromium, server.url, []) for _ in range(count)]
    for page in pages if panel else ():
        desk.tab(page, "neighbor-grpo").click()
        page.locator("[data-tab=runs]").click()
        page.get_by_role("button", name=RUN, exact=True).click()
        page.locator(".ng-main-chart canvas").wait_for()
    for page in pages[:-1]:  # Playwright lets every page believe that it has the focus
        page.evaluate("document.hasFocus = () => false")
    first = done(server) + SETTLED  # that the opening itself did not disturb
    wait_for(server, first + BLOCK)
    for page in pages:
        page.close()
    curves = server.get(f"{V1}/{RUN}/curves?names=seconds&from={first}&to={first + BLOCK - 1}")["curves"]
    return statistics.median(curves["seconds"]["mean"])


def done(server: ComfyServer) -> int:
    return next((run["iteration"] for run in server.get(V1)["runs"] if run["id"] == RUN), 0)


def wait_for(server: ComfyServer, iterations: int) -> None:
    while done(server) < iterations:
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
