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
from comfy_server import PACK, ComfyServer, sees_cuda
from PIL import Image, ImageDraw, ImageFont
from shared_server import TEST_PACKS, SharedServer

NARROW = 2**29  # bytes of the card: ComfyUI wants more beside a model, and sends others away before it draws
EVERY, QUIET = 0.05, 1.0  # seconds between samples, and of a phase's end
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 1200, 360, 48, 24, 36  # pixels
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
    kind, packs = (SharedServer, PACK | TEST_PACKS) if sees_cuda() else (CardServer, PACKS)
    with kind(comfy_install.find(), packs, base=base, environment={"TMPDIR": str(base)}) as server:
        if kind is CardServer:
            server.post("/card/limit", {"total": NARROW})
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
    """Bytes over time; each phase, however long, is a column of its own."""
    most, width = 1.1 * max(size for seen in samples.values() for _, size in seen), (WIDTH - LEFT) / len(samples)
    image = Image.new("RGB", (WIDTH, HEIGHT), SHADES[0])
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)

    def up(size: float) -> float:
        return HEIGHT - BOTTOM - size / most * (HEIGHT - TOP - BOTTOM)

    line = []
    for n, (phase, seen) in enumerate(samples.items()):
        left, (begin, _), (end, _) = LEFT + n * width, seen[0], seen[-1]
        pen.rectangle((left, TOP, left + width, HEIGHT - BOTTOM), SHADES[n % 2])
        pen.text((left + width / 2, HEIGHT - BOTTOM / 2), f"{phase}, {end - begin:.0f} s", INK, font, anchor="mm")
        line += [(left + (moment - begin) / (end - begin) * width, up(size)) for moment, size in seen]
    for tick in range(5):
        size = most * tick / 5
        pen.line((LEFT, up(size), WIDTH, up(size)), (225, 225, 225))
        pen.text((LEFT - 6, up(size)), f"{size / MIB:.0f}", INK, font, anchor="rm")
    pen.line(line, LINE, 2)
    pen.text((LEFT, 4), "MiB held on ComfyUI's device", INK, font)
    return image


if __name__ == "__main__":
    sys.exit(main())
