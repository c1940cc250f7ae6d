"""Pictures are stored before they are scored, and no reader takes an iteration under way for a whole one."""

import time
from concurrent.futures import Executor, Future
from functools import cache

import pytest
import torch
from PIL import Image
from run_reading import read
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.errors import UserError
from trainer.events import COMPLETE, FAILED, Drawn, Ending, Finished, IterationDone, Waiting
from trainer.history import candidate_tile, groups, index, summary
from trainer.settings.config_file import load_config
from trainer.store import writer
from trainer.store.writer import open_store
from trainer.training.run import start_run


def pictures(level: float) -> torch.Tensor:
    """Of one prompt's two candidates, the second one brighter by a quarter."""
    return torch.tensor([level, level + 0.25]).view(2, 1, 1, 1).expand(2, 3, 16, 16)


def drawn(iteration: int, level: float) -> Drawn:
    return Drawn(iteration, ["a cat"], [7], pictures(level), group_size=2)


def done(iteration: int, level: float, **more: torch.Tensor) -> IterationDone:
    return IterationDone(
        iteration=iteration,
        metrics={"loss": 0.5},
        prompts=["a cat"],
        seeds=[7],
        scores={"clip": torch.tensor([[1.0, 2.0]])},
        advantages=torch.tensor([[-1.0, 1.0]]),
        anchors=torch.tensor([[True, False]]),
        images=pictures(level),
        **more,
    )


def levels(folder, iteration: int) -> list[float]:
    """Of the candidates' pictures that the store tells of, in [0, 1]."""
    found = []
    for candidate in range(2):
        with Image.open(read(folder, candidate_tile, iteration, 0, candidate)) as picture:
            found.append(picture.convert("RGB").getpixel((5, 5))[0] / 255)
    return found


def close(*values: float):
    return pytest.approx(list(values), abs=0.02)


def test_pictures_lie_in_the_folder_before_they_are_scored_and_no_row_tells_of_them(tmp_path):
    with open_store(tmp_path) as store:
        store(done(0, 0.0))
        store(drawn(1, 0.5))
        store.settle()
        assert sorted(p.name for p in (tmp_path / "tiles/000001").iterdir()) == ["0-0.webp", "0-1.webp"]
        assert summary(tmp_path).iteration == 1
        assert read(tmp_path, groups, 1) == []
        assert (read(tmp_path, index).last, read(tmp_path, index).tiles) == (0, [0])
        assert read(tmp_path, candidate_tile, 1, 0, 0) is None


class Later(Executor):
    """A thread that gets round to its work when somebody waits for it."""

    def submit(self, work, /, *args, **kwargs):
        future = Future()
        future.result = cache(lambda: work(*args, **kwargs))
        return future


NEXT = [done(0, 0.5), done(1, 0.5), Waiting(0, "no server"), Finished(0, Ending(COMPLETE)), drawn(1, 0.5)]


class NoKernels(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} in the pictures' thread: torch makes it a pool of its own, beside the main one's")


def test_the_pictures_thread_runs_no_kernel_of_torch(tmp_path):
    with open_store(tmp_path) as store:
        store.thread = Later()
        store(drawn(0, 0.5))
        with NoKernels():
            store.settle()
    assert len(list((tmp_path / "tiles/000000").iterdir())) == 2


@pytest.mark.parametrize("event", NEXT)
def test_pictures_are_waited_for_by_what_comes_next_and_not_before(tmp_path, event):
    with open_store(tmp_path) as store:
        store.thread = Later()
        store(drawn(0, 0.5))
        assert not (tmp_path / "tiles").exists()
        store(event)
        assert len(list((tmp_path / "tiles/000000").iterdir())) == 2


def test_at_the_end_every_picture_is_there(tmp_path):
    with open_store(tmp_path) as store:
        store(drawn(0, 0.5))
    assert len(list((tmp_path / "tiles/000000").iterdir())) == 2


def refuse(*_) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("event", NEXT)
def test_what_the_disk_does_to_the_pictures_reaches_whoever_tells_the_next_event(tmp_path, monkeypatch, event):
    with open_store(tmp_path) as store:
        monkeypatch.setattr(writer, "write_tiles", refuse)
        store(drawn(0, 0.5))
        with pytest.raises(OSError, match="No space left"):
            store(event)
    assert read(tmp_path, groups, 0) == []


def test_that_a_run_failed_is_stored_although_its_pictures_could_not_be(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        monkeypatch.setattr(writer, "write_tiles", refuse)
        store(drawn(0, 0.5))
        with pytest.raises(OSError, match="No space left"):
            store(Finished(0, Ending(FAILED, "the disk is full")))
        assert store.info("state") == "failed: the disk is full"


def test_pictures_are_written_once(tmp_path):
    with open_store(tmp_path) as store:
        store(drawn(0, 0.5))
        store(done(0, 0.0))  # other pictures, to tell them apart
    assert levels(tmp_path, 0) == close(0.5, 0.75)


def test_the_base_noises_picture_comes_with_the_measures(tmp_path):
    with open_store(tmp_path) as store:
        store(drawn(0, 0.5))
        store(done(0, 0.5, base=torch.full((1, 3, 16, 16), 0.25)))
    (group,) = read(tmp_path, groups, 0)
    assert (group["base"], [c["tile"] for c in group["candidates"]]) == (True, [True, True])


def test_an_iteration_that_never_ended_is_drawn_anew(tmp_path):
    with open_store(tmp_path) as store:
        store(drawn(0, 0.0))
    with open_store(tmp_path) as store:  # of the process that goes on
        store.rewind(0)
        store(drawn(0, 0.5))
        store(done(0, 0.5))
    assert levels(tmp_path, 0) == close(0.5, 0.75)


def test_whoever_tells_of_whole_iterations_alone_has_pictures_too(tmp_path):
    with open_store(tmp_path) as store:
        store(drawn(0, 0.0))  # undone
        store(done(1, 0.5))
        store(done(0, 0.25))
    assert levels(tmp_path, 1) == close(0.5, 0.75)
    assert levels(tmp_path, 0) == close(0.25, 0.5)


def test_a_run_that_dies_before_the_scores_goes_on_and_draws_the_same_pictures(config_file, tmp_path):
    def die(event):
        if isinstance(event, Drawn) and event.iteration == 1:
            raise OSError("no power")

    config = load_config(config_file(), ["run.iterations=2", "run.save_every=1"])
    with pytest.raises(UserError, match="no power"):
        start_run(config, listeners=[die])
    folder = tmp_path / "run"
    first = {path.name: path.read_bytes() for path in (folder / "tiles/000001").iterdir()}
    assert len(first) == config.grpo.prompts_per_iteration * config.grpo.group_size
    assert (summary(folder).iteration, read(folder, index).tiles) == (1, [0])
    start_run(config, resume=True)
    assert (summary(folder).iteration, read(folder, index).tiles) == (2, [0, 1])
    assert {path.name: path.read_bytes() for path in (folder / "tiles/000001").iterdir()} == first


def test_what_listeners_take_is_not_the_iterations_time(config_file, monkeypatch):
    clock, late, seconds = time.perf_counter, [0.0], []

    def dawdle(event):
        if isinstance(event, Drawn):
            late[0] += 10_000
        if isinstance(event, IterationDone):
            seconds.append(event.metrics["seconds"])

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    start_run(load_config(config_file(), ["run.iterations=1"]), listeners=[dawdle])
    assert 0 < seconds[0] < 10_000


def test_pictures_are_written_every_so_many_iterations(tmp_path):
    with open_store(tmp_path, tiles_every=2) as store:
        for iteration in range(3):
            store(drawn(iteration, 0.5))
            store(done(iteration, 0.5))
    assert read(tmp_path, index).tiles == [0, 2]
    assert sorted(p.name for p in (tmp_path / "tiles").iterdir()) == ["000000", "000002"]
