#!/usr/bin/env python3
"""What open panels cost a training: seconds an iteration with one and with five of them, against none.

usage: python tests/host/bench_panel.py [--rounds N]

One training in a real ComfyUI; blocks of iterations without, with one and with five panels follow each other, so that
whatever else the machine does meets all of them. The browser runs on the same machine. Prints the medians' ratios.
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
import graphs
from comfy_server import PACK, ComfyServer

RUN, BLOCK, PANELS = "bench", 12, (0, 1, 5)
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
        server.queue(graphs.train(name=RUN, iterations=100_000, group_size=12, steps=8, micro_batch=12))
        wait_for(server, BLOCK)  # warm
        seconds = {count: [] for count in PANELS}
        for n in range(rounds):
            for count in PANELS[n % 3 :] + PANELS[: n % 3]:
                seconds[count].append(block(server, chromium, count))
        server.post("/interrupt", {})
    none = seconds[0]
    print(f"{statistics.median(none):.3f} s an iteration without a panel; {rounds} blocks of {BLOCK} iterations each")
    for count in PANELS[1:]:
        ratios = [a / b for a, b in zip(seconds[count], none, strict=True)]
        ratio = statistics.median(seconds[count]) / statistics.median(none)
        print(f"{count} open: {ratio:.3f} of the medians; block by block {min(ratios):.3f} to {max(ratios):.3f}")
    return 0


def block(server: ComfyServer, chromium, count: int) -> float:
    """The median of BLOCK iterations while `count` panels are open on the run's curves."""
    pages = [browser.open_page(chromium, server.url, []) for _ in range(count)]
    for page in pages:
        page.locator(".neighbor-grpo-tab-button").click()
        page.locator("[data-tab=runs]").click()
        page.get_by_role("button", name=RUN, exact=True).click()
        page.locator(".ng-main-chart canvas").wait_for()
    first = done(server) + 2  # that the opening itself did not disturb
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
