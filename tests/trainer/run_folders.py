#!/usr/bin/env python3
"""Run folders without a training: stores of any length, with pictures, as the engine writes them.

usage: python tests/trainer/run_folders.py FOLDER    writes a handful of runs into FOLDER, to look at
"""

import json
import math
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SCHEMAS = {
    1: """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE metrics (name TEXT, iteration INTEGER, value REAL, PRIMARY KEY (name, iteration)) WITHOUT ROWID;
CREATE TABLE groups (
    iteration INTEGER, slot INTEGER, prompt TEXT, seed INTEGER, PRIMARY KEY (iteration, slot)) WITHOUT ROWID;
CREATE TABLE candidates (
    iteration INTEGER, slot INTEGER, candidate INTEGER, advantage REAL, anchor INTEGER, tile TEXT,
    PRIMARY KEY (iteration, slot, candidate)) WITHOUT ROWID;
CREATE TABLE scores (
    iteration INTEGER, slot INTEGER, candidate INTEGER, reward TEXT, value REAL,
    PRIMARY KEY (iteration, slot, candidate, reward)) WITHOUT ROWID;
CREATE TABLE log (id INTEGER PRIMARY KEY, iteration INTEGER, message TEXT NOT NULL);
""",
}
SCHEMAS[2] = (
    SCHEMAS[1]
    + """
ALTER TABLE groups ADD COLUMN base TEXT;
ALTER TABLE groups ADD COLUMN distances BLOB;
CREATE TABLE evaluations (
    iteration INTEGER, number INTEGER, prompt TEXT, seed INTEGER, tile TEXT,
    PRIMARY KEY (iteration, number)) WITHOUT ROWID;
CREATE TABLE evaluation_scores (
    iteration INTEGER, number INTEGER, reward TEXT, value REAL, PRIMARY KEY (iteration, number, reward)) WITHOUT ROWID;
"""
)
PROMPTS = ("red apple on a blue background", "panda on a pink background")
MARKUP = "<img src=x onerror=alert(1)>"
TRAINED, HELD_OUT = "tiny-clip", "tiny-clip-heldout"
PHASES = {"rollout": 0.31, "decode": 0.04, "reward": 0.06, "update": 0.42}
BASE_EVERY = 10


def at(strength: float, trained: float, held_out: float) -> dict[str, object]:
    """A LoRA's rewards at a strength, each a rise by so much."""
    rises = {TRAINED: trained, HELD_OUT: held_out}
    rewards = {n: {"before": 0.5, "after": 0.5 + r, "difference": r, "standard_error": 0.01} for n, r in rises.items()}
    return {"strength": strength, "rewards": rewards}


TRIED = {  # of the LoRA after 12 iterations
    "strengths": [at(0.4, 0.1, 0.02), at(0.8, 0.2, 0.03), at(1.2, 0.3, -0.01)],
    "recommended": 0.8,
    "pictures": 8,
    "iteration": 12,
}


@dataclass(frozen=True)
class Run:
    """What a run folder holds; everything in it follows from these, and from the seed."""

    iterations: int = 40  # done
    planned: int = 40
    state: str = "complete"
    prompts: tuple[str, ...] = PROMPTS
    group_size: int = 12
    tiles_every: int = 1  # 0 stores none
    candidates: bool = True  # groups, candidates and scores as well as metrics
    edge: int = 64  # pixels of a tile
    version: int = 2
    started: float | None = 1_790_000_000.0
    info: dict[str, object] = field(default_factory=dict)
    evaluations: tuple[int, ...] = ()
    hacked: bool = False  # the held-out reward falls while the trained one rises
    missing: range = range(0)  # iterations of which nothing is known
    seed: int = 0


def write(folder: Path, run: Run) -> Path:
    """Write `folder/run.sqlite` and the pictures; returns `folder`."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(run.seed)
    database = sqlite3.connect(folder / "run.sqlite")
    with database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMAS[run.version])
        facts = {"version": run.version, "settings": settings(folder, run), "state": run.state}
        facts |= {"iterations": run.planned, "saved": run.iterations, "lora": str(folder / "lora.safetensors")}
        if run.version > 1 and run.started is not None:
            facts["started"] = run.started
        rows = [(key, json.dumps(value)) for key, value in (facts | run.info).items()]
        database.executemany("INSERT INTO info VALUES (?, ?)", rows)
        done = [i for i in range(run.iterations) if i not in run.missing]
        curves = metrics(done, random)
        if run.hacked:
            curves[f"reward/{HELD_OUT}"] = 0.44 - curves[f"reward/{HELD_OUT}"]
        for name, values in curves.items():
            rows = list(zip([name] * len(done), done, values.tolist(), strict=True))
            database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", rows)
        if run.candidates:
            for i in done:
                write_group(database, folder, run, i, random)
        for i in run.evaluations if run.version > 1 else ():
            write_evaluation(database, folder, run, i, random)
        database.execute("INSERT INTO log (iteration, message) VALUES (0, 'update skipped: only a test')")
    database.close()
    return folder


def settings(folder: Path, run: Run) -> dict[str, object]:
    """As `Config.to_dict()`, in part."""
    reward = {"weight": 1.0, "clip": [], "options": {}}
    return {
        "model": {"path": "embedded", "device": "cpu", "dtype": "float32", "guidance": 3.5, "text_tokens": 32},
        "prompts": list(run.prompts),
        "rewards": [
            {"kind": "clip", "name": TRAINED, "held_out": False, **reward},
            {"kind": "clip", "name": HELD_OUT, "held_out": True, **reward},
        ],
        "lora": {"rank": 8, "alpha": 8.0, "targets": "all-linear", "start": ""},
        "sampling": {"width": 64, "height": 64, "steps": 8, "solver": "dpm++2m", "shift": "auto"},
        "grpo": {"prompts_per_iteration": len(run.prompts), "group_size": run.group_size, "strength": 0.3, "clip": 0.2},
        "optimizer": {"learning_rate": 1e-3, "max_grad_ratio": 4.0},
        "run": {"folder": str(folder), "iterations": run.planned, "seed": 0, "tiles_every": run.tiles_every},
    }


def metrics(iterations: list[int], random: np.random.Generator) -> dict[str, np.ndarray]:
    """Curves of a run that learns, float64 [len(iterations)]; a few values are missing."""
    i = np.asarray(iterations, dtype=float)
    noise = lambda scale: random.normal(0, scale, len(i))  # noqa: E731
    learned = 1 - np.exp(-i / (30 + len(i) / 5))
    curves = {
        "loss": noise(0.01),
        "grad_norm": 0.4 + 0.2 * learned + np.abs(noise(0.05)),
        "clip_fraction": np.clip(0.05 + 0.1 * learned + noise(0.02), 0, 1),
        "kl_old": np.abs(noise(2e-3)),
        "kl_reference": 0.02 * learned + np.abs(noise(1e-3)),
        "ratio_error": np.abs(noise(1e-7)),
        "flatness": np.clip(0.5 + noise(0.08), 0, 1),
        "diversity": 0.06 * (1 - 0.4 * learned) + np.abs(noise(2e-3)),
        "skipped_groups": (random.random(len(i)) < 0.02).astype(float),
        "learning_rate": np.full(len(i), 1e-3),
        "strength": np.full(len(i), 0.3),
        f"reward/{TRAINED}": 0.25 + 0.06 * learned + noise(0.018),
        f"reward/{HELD_OUT}": 0.22 + 0.03 * learned + noise(0.018),
        f"reward_std/{TRAINED}": 0.02 + np.abs(noise(3e-3)),
        f"reward_std/{HELD_OUT}": 0.018 + np.abs(noise(3e-3)),
    }
    phases = {f"seconds/{name}": seconds + np.abs(noise(0.02)) for name, seconds in PHASES.items()}
    curves |= phases | {"seconds": sum(phases.values()) + 0.01}
    curves["grad_norm"][5:7] = math.nan
    return curves


def write_group(
    database: sqlite3.Connection, folder: Path, run: Run, iteration: int, random: np.random.Generator
) -> None:
    for slot, prompt in enumerate(run.prompts):
        latents = random.normal(0, 1, (run.group_size, 2)) @ random.normal(0, 0.2, (2, 64))  # [G, 64], nearly a plane
        latents += random.normal(0, 0.02, latents.shape)
        quality = np.clip(latents[:, 0] + 0.5 + 0.5 * iteration / max(run.planned, 1), 0, 1)  # [G]
        advantages = quality - quality.mean()
        pictured = bool(run.tiles_every) and iteration % run.tiles_every == 0
        group = [iteration, slot, prompt, 2**62 + 1 + iteration]
        if run.version > 1:
            with_base = pictured and iteration % BASE_EVERY == 0
            base = f"tiles/{iteration:06d}/{slot}-base.webp" if with_base else None
            if base:
                picture(folder / base, run.edge, slot, 0.5)
            group += [base, distances(latents).astype("<f4").tobytes()]
        database.execute(f"INSERT INTO groups VALUES ({', '.join('?' * len(group))})", group)
        for c in range(run.group_size):
            tile = f"tiles/{iteration:06d}/{slot}-{c}.webp" if pictured else None
            if tile:
                picture(folder / tile, run.edge, slot, quality[c])
            row = (iteration, slot, c, float(advantages[c]), int(c % 3 == 0), tile)
            database.execute("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)", row)
            scores = {TRAINED: 0.2 + 0.1 * quality[c], HELD_OUT: 0.2 + 0.05 * quality[c]}
            rows = [(iteration, slot, c, name, float(value)) for name, value in scores.items()]
            database.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)


def write_evaluation(
    database: sqlite3.Connection, folder: Path, run: Run, iteration: int, random: np.random.Generator
) -> None:
    for number, prompt in enumerate(run.prompts):
        tile, quality = f"tiles/evaluation-{iteration:06d}/{number}.webp", min(iteration / max(run.planned, 1), 1)
        picture(folder / tile, run.edge, number, quality)
        row = (iteration, number, prompt, 1000 + number, tile)
        database.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?)", row)
        for name in (TRAINED, HELD_OUT):
            value = 0.25 + 0.05 * quality + float(random.normal(0, 0.005))
            database.execute("INSERT INTO evaluation_scores VALUES (?, ?, ?, ?)", (iteration, number, name, value))


def distances(latents: np.ndarray) -> np.ndarray:
    """Root mean squared differences, [G, G] of [G, D]."""
    return np.sqrt(((latents[:, None] - latents[None]) ** 2).mean(-1))


def picture(path: Path, edge: int, slot: int, quality: float) -> None:
    """A disc that grows rounder and redder as the quality rises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (edge, edge), ("#9db8d8", "#e8b7c8", "#b9d8a0")[slot % 3])
    half = edge * (0.2 + 0.25 * float(quality))
    box = (edge / 2 - half, edge / 2 - half * 0.9, edge / 2 + half, edge / 2 + half * 0.9)
    ImageDraw.Draw(image).ellipse(box, (int(90 + 150 * float(quality)), 60, 60), (40, 30, 30))
    image.save(path, "WEBP", quality=80, method=0)


def main(folder: Path) -> None:
    now = time.time()
    change = [{"iteration": 20, "learning_rate": 5e-4}, {"iteration": 30, "strength": 0.25}]
    hour = 3600
    runs = {
        "healthy": Run(evaluations=(0, 20, 40), started=now - hour, info={"title": "Apples", "changes": change}),
        "ten-thousand": Run(
            iterations=10_000, planned=10_000, prompts=PROMPTS[:1], tiles_every=500, started=now - 9 * hour
        ),
        "markup": Run(
            iterations=12, planned=12, prompts=(MARKUP, "</script><script>alert(2)</script>"), started=now - 2 * hour,
            info={"title": MARKUP}, evaluations=(0,),
        ),
        "interrupted": Run(iterations=17, planned=300, state="running", started=now - 3 * hour, seed=3),
        "version-1": Run(iterations=20, planned=20, version=1, seed=4),
        "hacked": Run(iterations=200, planned=300, state="stopped", hacked=True, tiles_every=20, seed=6,
                      started=now - 5 * hour),
        "with-a-gap": Run(iterations=60, planned=60, missing=range(22, 31), started=now - 4 * hour, seed=5),
    }  # fmt: skip
    for name, run in runs.items():
        print(write(folder / name, run))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
