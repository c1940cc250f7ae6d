"""Whole runs that take a second: the flow in the plane of toy_family.py, trained, resumed and compared."""

import io
import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.store.database import DATABASE
from trainer.training.checkpoint import load as load_checkpoint
from trainer.training.run_folder import CHECKPOINTS, LORA

CONFIG = """
prompts = ["0.5 -1", "-1 0.5", "1 1"]
[model]
path = "anything"
family = "toy_family:ToyFlow"
device = "cpu"
[lora]
rank = 2
[sampling]
width = 16
height = 16
steps = 3
[grpo]
prompts_per_iteration = 2
group_size = 4
anchors = 2
trained_steps = 1
[optimizer]
learning_rate = 0.05
ema_decay = 0.5
[run]
iterations = {iterations}
save_every = {save_every}
base_every = 0
[[rewards]]
kind = "{reward}"
"""
logging.getLogger("fault").addHandler(logging.NullHandler())  # for a command's log, which is no terminal


class Told(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err

    @property
    def error(self) -> str:
        """The line that says what is wrong; empty if there is none."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")


def write_config(folder: Path, iterations: int = 12, save_every: int = 3, reward: str = "toy_reward:Green") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.toml"
    path.write_text(CONFIG.format(iterations=iterations, save_every=save_every, reward=reward), "utf-8")
    return path


def command(*words: object) -> Told:
    """`python -m trainer` in this process; what would have been a traceback is one."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception as error:  # noqa: BLE001  each of them would be a traceback
            code, text = 1, f"Traceback (most recent call last): {type(error).__name__}: {error}"
            err.write(text)
    return Told(code, out.getvalue(), err.getvalue())


def train(config: Path, folder: Path, *more: object) -> Told:
    return command("train", config, "--set", f"run.folder={str(folder)!r}", "--resume", *more)


def whole(folder: Path, **settings: object) -> Path:
    """A run that nothing disturbed; returns its folder."""
    told = train(write_config(folder, **settings), folder / "whole")
    assert told.code == 0, told.err
    return folder / "whole"


def result(folder: Path) -> dict[str, object]:
    """The weights and the optimiser that a run ended with, as bytes by name, and its iterations."""
    checkpoint = load_checkpoint(folder / CHECKPOINTS)
    parts = {"lora": checkpoint.lora, "average": checkpoint.average, "optimizer": checkpoint.optimizer}
    tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    tensors |= {f"file/{name}": value for name, value in load_file(folder / LORA).items()}
    return {"iteration": checkpoint.iteration, **{name: value.numpy().tobytes() for name, value in tensors.items()}}


def rewards_of(folder: Path) -> list[tuple[int, float]]:
    with sqlite3.connect(folder / DATABASE) as database:
        return database.execute("SELECT iteration, value FROM metrics WHERE name LIKE 'reward/%' ORDER BY 1").fetchall()


def saved(folder: Path) -> int:
    """Iterations in the newest whole checkpoint, 0 if there is none."""
    checkpoint = load_checkpoint(folder / CHECKPOINTS)
    return checkpoint.iteration if checkpoint else 0


def words(line: str, *paths: Path) -> str:
    """An error's line without what differs from one time to the next: below `paths` a file is a file."""
    for path in paths:
        line = re.sub(rf"{re.escape(str(path))}[^\s:]*", "FILE", line)
    return line.removeprefix("error: ")


def child(context, work: Callable[..., None], *args: object, limit: float = 300) -> int:
    """The exit code of a process of its own; -9 after `limit` seconds."""
    process = context.Process(target=work, args=args)
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode
