#!/usr/bin/env python3
"""What one ComfyUI process holds on its device while it trains, draws, trains step by step and draws again.

usage: python tests/host/memory_curve.py [--out PICTURE] [--json FILE]

Small FLUX files, ComfyUI's own loaders, sampler and VAE in turn with ours; on the card made of the CPU (tests/card)
unless torch sees a CUDA device. Each phase is sampled while it runs and until the device is quiet; a table and a curve
tell the most that was held and what was left.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import comfy_install
from card_runs import MIB, drawing, of_files, stepping, training
from card_server import PACKS, CardServer, write_inputs
from comfy_server import ComfyServer, _sees_cuda
from PIL import Image, ImageDraw, ImageFont
from shared_server import TEST_PACKS, SharedServer

EVERY, QUIET = 0.05, 1.0  # seconds between samples, and of a phase's end
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 1200, 360, 64, 24, 44  # pixels
INK, LINE, SHADES = (40, 40, 40), (35, 95, 170), ((255, 255, 255), (240, 244, 250))

PHASES = {
    "train": lambda: of_files(training("curve", rank=4, iterations=2)),
    "draw": lambda: drawing(seed=1),
    "rollout and step": lambda: of_files(stepping(rank=4)),
    "draw again": lambda: drawing(seed=2),
    "train again": lambda: of_files(training("curve", rank=4, iterations=2)),
    "Unload models": lambda: None,
}
Samples = dict[str, list[tuple[float, int]]]  # phase -> (seconds since the start, bytes held)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="picture of the curve")
    parser.add_argument("--json", type=Path, help="the samples")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as base, started(Path(base)) as server:
        write_inputs(server.base)
        samples = watched(server)
    print("| phase | most held, MiB | left, MiB |\n| --- | --- | --- |")
    for phase, seen in samples.items():
        print(f"| {phase} | {max(b for _, b in seen) / MIB:.1f} | {seen[-1][1] / MIB:.1f} |")
    if options.json:
        options.json.write_text(json.dumps(samples), "utf-8")
    if options.out:
        picture(samples).save(options.out)
    return 0


@contextmanager
def started(base: Path) -> Iterator[SharedServer]:
    kind, packs = (SharedServer, TEST_PACKS) if _sees_cuda() else (CardServer, TEST_PACKS)
    with kind(comfy_install.find(), PACKS | packs, base=base, environment={"TMPDIR": str(base)}) as server:
        yield server


def watched(server: SharedServer) -> Samples:
    points, begins, over = [], [], threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            points.append((time.monotonic(), held(server)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for graph in PHASES.values():
            begins.append(time.monotonic())
            if wanted := graph():
                server.wait(server.queue(wanted))
            else:
                server.forget()
            time.sleep(QUIET)
    finally:
        over.set()
        watcher.join()
    ends = [*begins[1:], time.monotonic()]
    return {
        phase: [(moment - begins[0], size) for moment, size in points if begin <= moment < end]
        for phase, begin, end in zip(PHASES, begins, ends, strict=True)
    }


def held(server: ComfyServer) -> int:
    """Bytes of the device that hold something; what torch keeps for later is free to it."""
    (device,) = server.get("/system_stats")["devices"]
    return device["vram_total"] - device["vram_free"]


def picture(samples: Samples) -> Image.Image:
    """Bytes over time, the phases in turn shaded and named."""
    points = [point for seen in samples.values() for point in seen]
    start, end, most = points[0][0], points[-1][0], 1.1 * max(held for _, held in points)

    def place(seconds: float, held: float) -> tuple[float, float]:
        across, up = (seconds - start) / (end - start), held / most
        return LEFT + across * (WIDTH - LEFT - 10), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    image = Image.new("RGB", (WIDTH, HEIGHT), SHADES[0])
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for n, (phase, seen) in enumerate(samples.items()):
        (left, bottom), (right, _) = place(seen[0][0], 0), place(seen[-1][0], 0)
        pen.rectangle((left, TOP, right, bottom), SHADES[n % 2])
        pen.text((left, bottom + 8), phase, INK, font)
    for tick in range(5):
        x, y = place(start, most * tick / 5)
        pen.line((x, y, WIDTH - 10, y), (225, 225, 225))
        pen.text((x - 6, y), f"{most * tick / 5 / MIB:.0f}", INK, font, anchor="rm")
    pen.line([place(*point) for point in points], LINE, 2)
    pen.text((LEFT, 4), "MiB held on ComfyUI's device", INK, font)
    return image


if __name__ == "__main__":
    sys.exit(main())
