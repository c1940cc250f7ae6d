"""Damaged pictures: bytes changed, cut, moved and sizes claimed, given to all that read pictures."""

import io
import multiprocessing
import os
import random
import re
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import Image
from rows import Row

from trainer.errors import Refused, UserError
from trainer.reward_server.pictures import IMAGE_TYPES, File, Limits, check, decode
from trainer.rewards.references import pixels_of
from trainer.settings.paths import read_init

TIMES = {"flipped": 6000, "repaired": 4000, "claiming": 4000, "cut": 3000, "moved": 2000, "forbidden": 2000}
BATCH = 250  # inputs in a process
EDGE = 24  # pixels
MEMORY = 1024  # MiB that the worst input may take
LONGEST = 20.0  # seconds of one input, at which it counts as hanging
FORBIDDEN = ("DDS", "JPEG2000", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "MSP", "XBM")
LARGE = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
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
    row = Row("memory and time of the worst of these")
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
    whole = forbidden() if kind == "forbidden" else samples()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (EDGE, EDGE)).save(folder / "plain.bmp")
        for _ in range(count):
            data = CHANGES[kind](generator, generator.choice(whole))
            for reader in READERS:
                began = time.monotonic()
                outcome, traceback = outcome_of(reader, folder, data)
                longest = max(longest, time.monotonic() - began)
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
        files = [File(content_type, data)]
        expected = check(files, ["a"], limits)
        assert sum(picture.nbytes for picture in decode(files, ["a"], limits)) == expected


READERS = (init, mask, reference, served)

# ---- what they are given


def samples() -> list[bytes]:
    """Whole files of every format that is read, in many modes."""
    noise = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 4), np.uint8)
    rgba, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    rgb, grey, deep = rgba.convert("RGB"), rgba.convert("L"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    palette = rgb.quantize(16)
    pictures = {"RGB": rgb, "RGBA": rgba, "L": grey, "LA": rgba.convert("LA"), "P": palette, "1": grey.convert("1")}
    pictures |= {"I;16": deep, "CMYK": rgb.convert("CMYK"), "LAB": rgb.convert("LAB")}
    pictures |= {"F": Image.fromarray(noise[..., 0].astype(np.float32) / 255)}
    wanted = [("PNG", mode, {"exif": exif}) for mode in ("RGB", "RGBA", "L", "LA", "1", "I;16")]
    wanted += [("PNG", "P", {"transparency": bytes(range(0, 256, 16))}), ("PNG", "RGB", {"transparency": (1, 2, 3)})]
    wanted += [("PNG", "RGB", {"icc_profile": bytes(200)}), ("PNG", "RGB", {"save_all": True, "append_images": [rgba]})]
    wanted += [("JPEG", mode, {"exif": exif}) for mode in ("RGB", "L", "CMYK")] + [("JPEG", "RGB", {"progressive": 1})]
    wanted += [("WEBP", "RGB", {"exif": exif}), ("WEBP", "RGBA", {"lossless": True})]
    wanted += [("WEBP", "RGB", {"save_all": True, "append_images": [rgba]})]
    wanted += [("BMP", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1")]
    wanted += [("GIF", "P", {"transparency": 3}), ("GIF", "P", {"save_all": True, "append_images": [grey]})]
    wanted += [
        ("TIFF", mode, {"exif": exif}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F", "LAB")
    ]
    methods = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    wanted += [("TIFF", "RGB", {"compression": method}) for method in methods] + [
        ("TIFF", "1", {"compression": "group4"})
    ]
    return [saved(pictures[mode], kind, **options) for kind, mode, options in wanted]


def forbidden() -> list[bytes]:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    modes = {"MSP": "1", "XBM": "1"}
    files = [saved(rgb.convert(modes.get(kind, "RGB")), kind) for kind in FORBIDDEN]
    hostile = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(a.txt) run\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ]
    photoshop = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(4096)
    fli = struct.pack("<IHHHHHHI", 128, 0xAF12, 1, 64, 64, 8, 3, 10) + bytes(200)
    return [*files, *hostile, photoshop, fli, b"\0\0\0\x1cftypavif" + bytes(300), b"\0\0\0\x1cftypheic" + bytes(300)]


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def flipped(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    near = generator.choice([64, 512, len(data)])  # headers more often than pixels
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(min(near, len(data)))] = generator.randrange(256)
    return bytes(changed)


def repaired(generator: random.Random, data: bytes) -> bytes:
    return checked(flipped(generator, data), data)


def claiming(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        size = generator.choice((2, 4))
        at = generator.randrange(min(len(data), 200) - size)
        value = generator.choice(LARGE) % 256**size
        changed[at : at + size] = value.to_bytes(size, generator.choice(("little", "big")))
    return checked(bytes(changed), data)


def checked(changed: bytes, data: bytes) -> bytes:
    """A changed PNG with chunks as long as in `data`, and the checksums of what is in them now; others as they are."""
    if not data.startswith(b"\x89PNG"):
        return changed
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = changed[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out


def cut(generator: random.Random, data: bytes) -> bytes:
    return data[: generator.randrange(len(data))]


def moved(generator: random.Random, data: bytes) -> bytes:
    first, second = generator.randrange(len(data)), generator.randrange(len(data))
    return data[:first] + data[second:]


def perhaps_flipped(generator: random.Random, data: bytes) -> bytes:
    return data if generator.random() < 0.3 else flipped(generator, data)


CHANGES = {
    "flipped": flipped,
    "repaired": repaired,
    "claiming": claiming,
    "cut": cut,
    "moved": moved,
    "forbidden": perhaps_flipped,
}
