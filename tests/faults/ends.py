"""Whatever ends a run: kills at any moment, signals, errors of rewards and of what listens."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import toy_runs
from killing import kill_at
from rows import Row

from trainer.errors import UserError
from trainer.settings.config_file import load_config
from trainer.store.database import StoreError
from trainer.store.reader import reading
from trainer.training.run import start_run

ITERATIONS = 12
KILLS = 50
SIGNALS = {"SIGTERM": 20, "SIGHUP": 10, "SIGINT": 10}
ERRORS = {
    "ValueError('nothing to see')": ValueError("nothing to see"),
    "KeyError": KeyError("score"),
    "ZeroDivisionError": ZeroDivisionError("division by zero"),
    "RuntimeError": RuntimeError("a kernel failed"),
    "OSError 5": OSError(5, "Input/output error", "weights.bin"),
    "ConnectionResetError": ConnectionResetError(104, "Connection reset by peer"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "MemoryError": MemoryError(),
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "UserError": UserError("the picture cannot be scored: draw another one"),
    "a megabyte of text": ValueError("x" * 10**6),
    "Ctrl-C twice": KeyboardInterrupt(),
}
TIMES = 10  # of each, at random iterations


def rows(share: float = 1.0) -> Iterator[Row]:
    generator = random.Random(13)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = toy_runs.result(toy_runs.whole(folder, iterations=ITERATIONS, save_every=1))
        if hasattr(signal, "SIGKILL"):
            yield from killed(generator, folder, expected, share)
        config = toy_runs.write_config(
            folder, ITERATIONS, 100
        )  # nothing is saved before the end, if nothing goes wrong
        for kind, (fault, error) in enumerate(ERRORS.items()):
            row = Row(f"{fault} in a reward")
            for n in range(max(1, round(TIMES * share))):
                failing(row, config, folder / f"run {kind}-{n}", generator.randrange(1, ITERATIONS), error, expected)
            yield row
        row = Row("an error of a listener")
        for n in range(max(1, round(TIMES * share))):
            listened(row, config, folder / f"heard {n}", generator.randrange(1, ITERATIONS), expected)
        yield row


def killed(generator: random.Random, folder: Path, expected: dict[str, object], share: float) -> Iterator[Row]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.training.run", "toy_runs", "ends"])
    config, run = toy_runs.write_config(folder, ITERATIONS, 1), folder / "killed"
    assert toy_runs.child(context, until, config, folder / "counted", -1, folder / "moments") == 0
    moments = int((folder / "moments").read_text())
    row, left = Row("SIGKILL at any moment, and gone on with"), max(2, round(KILLS * share))
    while left:
        before = toy_runs.saved(run)
        code = toy_runs.child(context, until, config, run, generator.randrange(moments), folder / "moments")
        if code == -signal.SIGKILL:
            left -= 1
            row.add("nothing that was saved is gone", lost=toy_runs.saved(run) < before)
        else:  # it came to its end before the moment: another one
            finished(row, config, run, expected)
            shutil.rmtree(run)
    finished(row, config, run, expected)
    yield row
    config = toy_runs.write_config(folder, 10**5, 100)  # without an end of its own
    for name, times in SIGNALS.items():
        row = Row(f"{name} at any moment")
        for n in range(max(1, round(times * share))):
            signalled(row, context, config, folder / f"{name} {n}", getattr(signal, name), generator.random())
        yield row


def until(config: Path, run: Path, moment: int, counted: Path) -> None:
    """A training that ends by SIGKILL as it touches the disk for the nth time; how often it does is told if it ends."""
    times = kill_at(moment)
    told = toy_runs.train(config, run)
    counted.write_text(str(times()))
    sys.exit(told.code)


def finished(row: Row, config: Path, run: Path, expected: dict[str, object]) -> None:
    """What was interrupted is gone on with: it has to arrive where the undisturbed run did."""
    told = toy_runs.train(config, run)
    same = told.code == 0 and toy_runs.result(run) == expected
    row.add("went on to the same weights, bit for bit" if same else "other weights", lost=not same)


def trained(config: Path, run: Path, out: Path) -> None:
    for name in SIGNALS:  # whoever started this may ignore some (nohup)
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    told = toy_runs.train(config, run)
    out.write_text(told.err, "utf-8")
    sys.exit(told.code)


def signalled(row: Row, context, config: Path, run: Path, number: int, when: float) -> None:
    """One signal some iterations after the start; `when` from 0 to 1."""
    run.mkdir()
    process = context.Process(target=trained, args=(config, run / "run", run / "err"))
    process.start()
    while process.is_alive() and begun(run / "run") < 1 + 20 * when:
        process.join(0.01)
    os.kill(process.pid, number)
    process.join(300)
    told = (run / "err").read_text("utf-8") if (run / "err").exists() else "Traceback"
    done, saved = begun(run / "run"), toy_runs.saved(run / "run")
    good = process.exitcode == 128 + number
    outcome = f"saved, exit code {process.exitcode}" if good else f"exit code {process.exitcode}"
    row.add(outcome, lost=saved < done or not good, traceback="Traceback" in told)


def begun(run: Path) -> int:
    """Iterations in the store."""
    try:
        with reading(run) as store:
            return store.done()
    except StoreError:
        return 0


class Failing:
    """The toy reward, which raises `error` in iteration `at`."""

    error: BaseException | None = None
    at = 0

    def __init__(self, device: str = "cpu"):
        self.calls = -1

    def score(self, images, prompts):
        self.calls += 1
        if Failing.error is not None and self.calls == Failing.at:
            raise Failing.error
        return (images[:, 1] - images[:, 0]).mean((1, 2)).clamp(max=1.0)


def failing(row: Row, config: Path, run: Path, at: int, error: BaseException, expected: dict[str, object]) -> None:
    Failing.error, Failing.at = error, at
    sets = ("--set", "rewards.0.kind='ends:Failing'")
    try:
        told = toy_runs.train(config, run, *sets)
    finally:
        Failing.error = None
    kept = toy_runs.saved(run)
    again = toy_runs.train(config, run, *sets)
    same = again.code == 0 and toy_runs.result(run) == expected
    outcome = toy_runs.words(told.error, run)[:200] if told.code == 2 else f"exit code {told.code}"
    row.add(outcome, lost=kept != at or not same, traceback=told.traceback)


def listened(row: Row, config: Path, run: Path, at: int, expected: dict[str, object]) -> None:
    """What listens fails as it hears of an iteration: its weights are trained already, and are kept."""

    def listener(event) -> None:
        if type(event).__name__ == "IterationDone" and event.iteration == at:
            raise RuntimeError("the listener is gone")

    settings = load_config(config, [f"run.folder={str(run)!r}"])
    try:
        start_run(settings, listeners=[listener])
    except RuntimeError as error:
        outcome = f"{error}: told"
    kept = toy_runs.saved(run)
    start_run(settings, resume=True)
    row.add(outcome, lost=kept != at + 1 or toy_runs.result(run) != expected)
