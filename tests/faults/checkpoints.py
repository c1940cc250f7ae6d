"""Bytes that change on disk: each one in turn, of any file of a run, which is then gone on with."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import toy_runs
from rows import Row

ITERATIONS = 6  # done when a byte changes, two checkpoints saved
SUBJECTS = {  # what is damaged -> the files, times
    "a byte of the newest checkpoint's tensors": ("checkpoint/000006/*.safetensors", 500),
    "a byte of the newest state.json": ("checkpoint/000006/state.json", 250),
    "a byte of the older checkpoint": ("checkpoint/000003/*", 50),
    "a byte of the store": ("run.sqlite", 150),
    "a byte of the exported LoRA": ("lora.safetensors", 25),
    "a byte of a picture": ("tiles/*/*.webp", 25),
}
CUTS = 100  # files of the newest checkpoint cut short, and as many that are missing


def rows(share: float = 1.0) -> Iterator[Row]:
    generator = random.Random(14)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = toy_runs.write_config(folder, ITERATIONS, ITERATIONS // 2)
        assert toy_runs.train(config, folder / "run").code == 0
        shutil.copytree(folder / "run", folder / "straight")
        config = toy_runs.write_config(folder, ITERATIONS + 1, ITERATIONS // 2)
        assert toy_runs.train(config, folder / "straight").code == 0
        expected = toy_runs.result(folder / "straight")
        for fault, (pattern, times) in SUBJECTS.items():
            row = Row(f"{fault} changes")
            for _ in range(max(1, round(times * share))):
                one(row, config, folder, expected, lambda run, p=pattern: flip(generator, sorted(run.glob(p))))
            yield row
        for fault, damage in (("is cut short", cut), ("is gone", drop)):
            row = Row(f"a file of the newest checkpoint {fault}")
            for _ in range(max(1, round(CUTS * share))):
                one(row, config, folder, expected, lambda run, d=damage: d(generator, newest(run)))
            yield row


def one(row: Row, config: Path, folder: Path, expected: dict[str, object], damage) -> None:
    """Damage a copy of the run, go on with it, and compare what comes with what had to."""
    run = folder / "copy"
    shutil.copytree(folder / "run", run)
    damage(run)
    told = toy_runs.train(config, run)
    outcome = f"refused: {toy_runs.words(told.error, run)}" if told.code == 2 else outcome_of(told)
    # what is refused is as it was; what goes on has to arrive at the same weights
    lost = told.code != 0 or toy_runs.result(run) != expected
    row.add(outcome, lost=lost, traceback=told.traceback)
    shutil.rmtree(run)


def outcome_of(told: toy_runs.Told) -> str:
    if "going on from the one after" in told.err:
        return "went on from the older checkpoint, and said so"
    if "begun anew" in told.err:
        return "went on with a new store, and said so"
    return "went on" if told.code == 0 else f"exit code {told.code}"


def newest(run: Path) -> list[Path]:
    return sorted((run / "checkpoint" / f"{ITERATIONS:06d}").iterdir())


def flip(generator: random.Random, files: list[Path]) -> None:
    """Each byte of all of them is as likely."""
    place = generator.randrange(sum(file.stat().st_size for file in files))
    for file in files:
        if place < file.stat().st_size:
            break
        place -= file.stat().st_size
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1 << generator.randrange(8)
    file.write_bytes(raw)


def cut(generator: random.Random, files: list[Path]) -> None:
    file = generator.choice(files)
    with open(file, "rb+") as opened:
        opened.truncate(generator.randrange(file.stat().st_size))


def drop(generator: random.Random, files: list[Path]) -> None:
    generator.choice(files).unlink()
