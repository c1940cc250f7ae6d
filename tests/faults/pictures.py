"""Damaged pictures: bytes changed, cut, moved and sizes claimed, given to all that read pictures."""

import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from damaged_pictures import CHANGES, EDGE, WHOLE
from PIL import Image
from rows import Row

from trainer.errors import Refused, UserError
from trainer.reward_server.pictures import IMAGE_TYPES, File, Limits, check, decode
from trainer.rewards.references import pixels_of
from trainer.settings.paths import read_init

TIMES = {"flipped": 6000, "repaired": 4000, "claiming": 4000, "cut": 3000, "moved": 2000, "forbidden": 2000}
BATCH = 250  # inputs in a process
MEMORY = 3072  # MiB that the worst input may take
LONGEST = 20.0  # seconds of computation for one input, at which it counts as hanging
FAULTS = {
    "flipped": "pictures with 1 to 8 bytes changed",
    "repaired": "the same, with the checksums of PNG made right again",
    "claiming": "sizes, counts and offsets of 0 to 2^32 in place of a number in the header",
    "cut": "pictures cut short",
    "moved": "a part left out or repeated",
    "forbidden": "other formats, whole or with bytes changed, under the name of a PNG",
}


def rows(share: float = 1.0) -> Iterator[Row]:
    worst, longest = 0.0, 0.0
    for seed, (kind, times) in enumerate(TIMES.items()):
        row = Row(f"{FAULTS[kind]}, to the readers of init, masks, references and the reward server")
        for first in range(0, max(20, round(times * share)), BATCH):
            count = min(BATCH, max(20, round(times * share)) - first)
            outcomes, memory, seconds = apart(tried, kind, 1000 * seed + first // BATCH, count)
            for outcome, lost, traceback in outcomes:
                row.add(outcome, lost=lost, traceback=traceback)
            worst, longest = max(worst, memory), max(longest, seconds)
        yield row
    if share >= 1:
        row = Row("a transparent picture as large as is read, of 2 MB, to the same")
        outcomes, memory, seconds = apart(tried, "largest", 0, 1)
        for outcome, lost, traceback in outcomes:
            row.add(outcome, lost=lost, traceback=traceback)
        worst, longest = max(worst, memory), max(longest, seconds)
        yield row
    row = Row("memory and computation of the worst of these")
    row.add(f"below {MEMORY} MiB, below {LONGEST:.0f} s", lost=worst > MEMORY or longest > LONGEST)
    yield row


def apart(work: Callable[..., tuple], *arguments: object) -> tuple[list[tuple[str, bool, bool]], float, float]:
    """In a process of its own: a decoder that crashes is one more outcome."""
    fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(1, multiprocessing.get_context(fork), initializer=hush) as process:
        try:
            return process.submit(work, *arguments).result()
        except BrokenProcessPool:
            return [(f"the process died at {arguments}", True, True)], 0.0, 0.0


def hush() -> None:
    """What decoders print goes nowhere; of a command, it goes into the log."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def tried(kind: str, seed: int, count: int) -> tuple[list[tuple[str, bool, bool]], float, float]:
    """The outcomes of some inputs, the MiB that they took, and the seconds of the longest."""
    generator, before, longest = random.Random(seed), peak(), 0.0
    outcomes = []
    whole = WHOLE.get(kind, WHOLE["any"])()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (EDGE, EDGE)).save(folder / "plain.bmp")
        for _ in range(count):
            data = CHANGES[kind](generator, generator.choice(whole))
            for reader in READERS:
                began = time.process_time()
                outcome, traceback = outcome_of(reader, folder, data)
                longest = max(longest, time.process_time() - began)
                outcomes.append((outcome, kind == "forbidden" and outcome == "read", traceback))
    return outcomes, peak() - before, longest


def outcome_of(reader: Callable[[Path, bytes], None], folder: Path, data: bytes) -> tuple[str, bool]:
    """What a user reads, without names and numbers, and whether it is no line of this project's own."""
    try:
        reader(folder, data)
    except (UserError, Refused) as error:
        return words(str(error), folder), not one_line(str(error))
    except Exception as error:  # noqa: BLE001, a traceback is what is counted here
        return f"{type(error).__name__} from {reader.__name__}", True
    return "read", False


def words(text: str, folder: Path) -> str:
    for name in (f"{folder}/", "init: ", "reference similarity: ", "the mask ", "a.png ", "images[0] "):
        text = text.replace(name, "")
    text = re.sub(r"no whole .* file", "no whole file of these formats", re.sub(r" \(.*\)", "", text))
    return re.sub(r"\d+", "N", text)


def one_line(text: str) -> bool:
    return "\n" not in text and 10 < len(text) < 600 and "Traceback" not in text


def peak() -> float:
    """MiB, the most that this process ever took; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---- who reads


def init(folder: Path, data: bytes) -> None:
    (folder / "a.png").write_bytes(data)
    read_init({"image": "a.png"}, folder)


def mask(folder: Path, data: bytes) -> None:
    (folder / "a.png").write_bytes(data)
    read_init({"image": "plain.bmp", "mask": "a.png"}, folder)


def reference(folder: Path, data: bytes) -> None:
    (folder / "a.png").write_bytes(data)
    pixels_of(folder / "a.png")


def served(_: Path, data: bytes) -> None:
    limits = Limits(images=4, pixels=2048 * 2048)
    for content_type in IMAGE_TYPES:
        file = File(content_type, data)
        ((width, height),) = check([file], ["a"], limits)
        out = torch.full((3, height, width), torch.nan)
        decode(file, "images[0]", limits, out)
        assert out.isfinite().all()


READERS = (init, mask, reference, served)
