"""What is read from run folders: whole, old, half written, broken, and while they are written."""

import io
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from run_folders import HELD_OUT, TRAINED, TRIED, Run, write
from run_reading import edit, read

from trainer.events import Ending, Finished, IterationDone, Skipped, Started
from trainer.history import (
    NoRun,
    StoreError,
    details,
    evaluation,
    find,
    findings,
    groups,
    index,
    reading,
    strengths,
    summaries,
    summary,
)
from trainer.history.export import write_csv, write_json
from trainer.history.groups import base_tile, candidate_tile, evaluation_tile, inside
from trainer.history.strengths import keep
from trainer.lock import exclusive
from trainer.store import writer as metrics
from trainer.store.database import DATABASE

ROOT = Path(__file__).parents[2]


def done(iteration: int, value: float = 0.5) -> IterationDone:
    return IterationDone(
        iteration=iteration,
        metrics={"loss": value, "grad_norm": math.nan},
        prompts=["a cat"],
        seeds=[2**62 + 1],
        scores={"clip": torch.tensor([[1.0, math.inf, 3.0]])},
        advantages=torch.tensor([[-1.0, 0.0, 1.0]]),
        anchors=torch.tensor([[True, False, False]]),
        images=torch.zeros(3, 3, 16, 16),
    )


def test_what_the_engine_writes_is_read_back_while_it_writes(tmp_path):
    with metrics.open_store(tmp_path / "run") as store:
        store.set_info(settings={"model": {"path": "embedded"}, "prompts": ["a cat"], "rewards": [{"kind": "clip"}]})
        store(Started(0, 5))
        store(done(0))
        found = summary(tmp_path / "run")
        assert (found.state, found.iteration, found.iterations) == ("interrupted", 1, 5)  # nobody holds the folder
        with exclusive(str((tmp_path / "run").absolute()), "busy"):
            found = summary(tmp_path / "run")
            assert (found.state, found.live) == ("running", True)
        store(done(1))
        store(Skipped(1, "a reason"))
        store(Finished(2, Ending("complete")))
        found = summary(tmp_path / "run")
        assert (found.state, found.iteration, found.live, found.trained) == ("complete", 2, False, ("clip",))
        assert read(tmp_path / "run", details)["log"] == [{"iteration": 1, "message": "update skipped: a reason"}]
        (group,) = read(tmp_path / "run", groups, 0)
    assert (group["prompt"], group["seed"]) == ("a cat", str(2**62 + 1))
    assert [c["advantage"] for c in group["candidates"]] == [-1.0, 0.0, 1.0]
    assert [c["anchor"] for c in group["candidates"]] == [True, False, False]
    assert [c["scores"]["clip"] for c in group["candidates"]] == [1.0, None, 3.0]
    assert all(c["tile"] for c in group["candidates"])
    assert read(tmp_path / "run", candidate_tile, 1, 0, 2).read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize("state", ["", "running", "paused", "waiting: the server: it sleeps"])
def test_a_run_at_work_that_nobody_trains_was_interrupted(tmp_path, state):
    folder = write(tmp_path / "run", Run(iterations=1, state=state, tiles_every=0))
    assert summary(folder).state == "interrupted"
    with exclusive(str(folder.absolute()), "busy"):
        assert summary(folder).state == (state or "running")


@pytest.mark.parametrize("state", ["complete", "stopped", "failed: why", "step by step"])
def test_a_run_that_was_ended_keeps_its_state(tmp_path, state):
    folder = write(tmp_path / "run", Run(iterations=1, state=state, tiles_every=0))
    assert summary(folder).state == state


def test_reading_leaves_the_store_as_it_is(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=3))
    before = (folder / DATABASE).read_bytes(), (folder / DATABASE).stat().st_mtime_ns
    read(folder, groups, 0)
    with pytest.raises(StoreError, match="readonly"), reading(folder) as store:
        store._database.execute("DELETE FROM metrics")
    assert before == ((folder / DATABASE).read_bytes(), (folder / DATABASE).stat().st_mtime_ns)


def test_a_look_is_of_one_moment(tmp_path):
    with metrics.open_store(tmp_path / "run") as store:
        store(done(0))
        with reading(tmp_path / "run") as look:
            assert look.done() == 1
            store(done(1))
            assert look.done() == 1
        assert read(tmp_path / "run", lambda s: s.done()) == 2


def test_an_old_store_has_everything_but_what_is_new(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=3, version=1))
    found = summary(folder)
    assert (found.started, found.title, found.state) == (None, "run", "complete")
    group = read(folder, groups, 2)[1]
    assert (group["base"], group["distances"], group["points"], group["explained"]) == (False, None, None, None)
    assert len(group["candidates"]) == 12
    assert read(folder, evaluation, 0) == []
    assert read(folder, index).evaluations == []
    assert read(folder, base_tile, 0, 0) is None


@pytest.mark.parametrize("kept", [(), ("metrics",), ("info", "groups")])
def test_a_half_written_store_shows_what_there_is(tmp_path, kept):
    folder = write(tmp_path / "run", Run(iterations=3))
    edit(
        folder,
        *(f"DROP TABLE {t}" for t in ("info", "metrics", "groups", "candidates", "scores", "log") if t not in kept),
    )
    (found,) = summaries(tmp_path)
    assert found.iteration == (3 if "metrics" in kept else 0)
    assert found.trained == ((TRAINED,) if "info" in kept else ())
    assert found.state == ("complete" if "info" in kept else "interrupted")
    assert len(read(folder, groups, 0)) == (2 if "groups" in kept else 0)
    assert read(folder, details)["log"] == []
    for write_file in (write_csv, write_json):
        read(folder, write_file, io.StringIO())


def test_an_empty_file_is_a_run_without_anything(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / DATABASE).touch()
    (found,) = summaries(tmp_path)
    assert (found.state, found.iteration, found.title) == ("interrupted", 0, "run")


@pytest.mark.parametrize("spoil", ["garbage", "cut", "other types", "no JSON"])
def test_a_broken_store_breaks_its_own_line_only(tmp_path, spoil):
    folder, whole = (
        write(tmp_path / "run", Run(iterations=30, tiles_every=0)),
        write(tmp_path / "whole", Run(iterations=1, tiles_every=0)),
    )
    raw = (folder / DATABASE).read_bytes()
    if spoil == "garbage":
        (folder / DATABASE).write_bytes(b"no database, but of some length " * 100)
    elif spoil == "cut":
        (folder / DATABASE).write_bytes(raw[: len(raw) // 3])
    elif spoil == "other types":
        edit(folder, "UPDATE info SET value = '[3]'", "UPDATE metrics SET value = 'text'")
    else:
        edit(folder, "UPDATE info SET value = '{'")
    found = {s.id: s for s in summaries(tmp_path)}
    assert found["whole"].state == "complete"
    if spoil in ("garbage", "cut"):
        assert found["run"].state.startswith("unreadable: ")
        with pytest.raises(StoreError) as error:
            read(folder, groups, 0)
        assert not error.value.later
    assert summary(whole).iteration == 1


def test_a_store_that_is_locked_says_so_and_to_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.store.database.READING", 0.05)
    folder = write(tmp_path / "run", Run(iterations=1))
    owner = sqlite3.connect(folder / DATABASE)
    owner.execute("PRAGMA journal_mode = DELETE")
    owner.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked") as error:
        summary(folder)
    assert error.value.later
    owner.close()
    assert summary(folder).iteration == 1


@pytest.mark.skipif(os.name == "nt", reason="permissions of folders are POSIX's")
def test_a_folder_that_cannot_be_written_to_is_read():
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from trainer.history import summary\n"
        "os.geteuid() or os.setuid(65534)\n"  # root may write everywhere
        "print(summary(Path(sys.argv[1])).iteration)"
    )
    with tempfile.TemporaryDirectory() as parent:
        folder = write(Path(parent) / "run", Run(iterations=2, tiles_every=0))
        assert [p.name for p in folder.iterdir()] == [DATABASE]
        Path(parent).chmod(0o755)
        folder.chmod(0o555)
        found = subprocess.run([sys.executable, "-c", code, folder, ROOT], capture_output=True, text=True)
        folder.chmod(0o755)
    assert found.stdout.strip() == "2", found.stderr


def test_runs_are_listed_newest_first(tmp_path):
    for n, started in enumerate((30.0, 10.0, 20.0)):
        write(tmp_path / f"run-{n}", Run(iterations=1, started=started))
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    write(tmp_path / ".hidden", Run(iterations=1))
    assert [s.id for s in summaries(tmp_path)] == ["run-0", "run-2", "run-1"]
    assert summaries(tmp_path / "nowhere") == []


def test_a_summary_follows_the_store(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=2))
    os.utime(folder / DATABASE, (1000, 1000))
    assert summary(folder).iteration == 2
    edit(folder, "INSERT INTO metrics VALUES ('loss', 7, 1.0)")
    assert summary(folder).iteration == 8
    assert summary(folder).updated > 1000


OUTSIDE = [
    "..",
    ".",
    "",
    ".trash",
    "../secret",
    "a/b",
    "a\\b",
    "/etc",
    "C:x",
    "nul\0",
    "x" * 10_000,
    "missing",
    "\ud800",
]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_only_plain_names_of_runs_are_found(tmp_path, name):
    write(tmp_path / "secret", Run(iterations=1))
    write(tmp_path / "runs" / "run", Run(iterations=1))
    with pytest.raises(NoRun):
        find(tmp_path / "runs", name)
    assert find(tmp_path / "runs", "run") == (tmp_path / "runs" / "run").resolve()


def test_the_log_is_told_in_order_and_only_its_end(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=1, tiles_every=0))
    edit(folder, *(f"INSERT INTO log (iteration, message) VALUES ({n}, 'line {n}')" for n in range(1, 250)))
    found = read(folder, details)["log"]
    assert [entry["message"] for entry in found] == [f"line {n}" for n in range(50, 250)]


def test_the_strengths_that_a_lora_was_tried_at_are_read_back(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=1, tiles_every=0))
    assert read(folder, strengths) is None
    keep(folder, {key: value for key, value in TRIED.items() if key != "iteration"}, 12)
    found = read(folder, strengths)
    assert (found["recommended"], found["pictures"], found["iteration"]) == (0.8, 8, 12)
    assert [row["strength"] for row in found["strengths"]] == [0.4, 0.8, 1.2]
    assert found["strengths"][2]["rewards"][HELD_OUT] == {"after": 0.49, "difference": -0.01, "standard_error": 0.01}


@pytest.mark.parametrize(
    "stored",
    [3, [], {"strengths": 3}, {"strengths": []}, {"recommended": 0.8}],
    ids=str,
)
def test_what_is_no_table_of_strengths_is_none(tmp_path, stored):
    folder = write(tmp_path / "run", Run(iterations=1, tiles_every=0, info={"strengths": stored}))
    assert read(folder, strengths) is None


def test_a_strange_table_of_strengths_is_read_as_far_as_it_goes(tmp_path):
    strange = {"strength": 1e300, "rewards": {"a": 7, "b" * 5000: {"after": []}}}
    rows = [None, {"strength": "x", "rewards": [1]}, strange]
    known = {"strengths": rows * 100, "recommended": {}, "pictures": None}
    found = read(write(tmp_path / "run", Run(iterations=1, tiles_every=0, info={"strengths": known})), strengths)
    nothing = {"after": None, "difference": None, "standard_error": None}
    assert len(found["strengths"]) == 100
    assert found["strengths"][1] == {"strength": None, "rewards": {}}
    assert found["strengths"][2] == {"strength": None, "rewards": {"a": nothing, "b" * 1000: nothing}}
    assert (found["recommended"], found["pictures"], found["iteration"]) == (None, None, None)


def test_a_folder_whose_name_is_no_text_does_not_spoil_the_list(tmp_path):
    try:
        write(tmp_path / os.fsdecode(b"run-\xff"), Run(iterations=1))
    except OSError:
        pytest.skip("this file system knows no such names")
    write(tmp_path / "run: a, b\u00fc", Run(iterations=1))
    assert [s.id for s in summaries(tmp_path)] == ["run: a, b\u00fc"]


def test_a_link_is_no_run(tmp_path):
    secret, runs = write(tmp_path / "secret", Run(iterations=1)), tmp_path / "runs"
    (runs / "store").mkdir(parents=True)
    (runs / "out").symlink_to(secret)
    (runs / "circle").symlink_to(runs / "circle")
    (runs / "store" / DATABASE).symlink_to(secret / DATABASE)
    write(runs / "run", Run(iterations=1))
    (runs / "again").symlink_to(runs / "run")
    assert [s.id for s in summaries(runs)] == ["run"]
    (tmp_path / "linked").symlink_to(runs)  # the folder of runs itself may be one
    assert [s.id for s in summaries(tmp_path / "linked")] == ["run"]


def test_pictures_lie_in_their_run(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=1, evaluations=(0,)))
    assert read(folder, candidate_tile, 0, 1, 3) == folder.resolve() / "tiles/000000/1-3.webp"
    assert read(folder, base_tile, 0, 1) == folder.resolve() / "tiles/000000/1-base.webp"
    assert read(folder, evaluation_tile, 0, 1) == folder.resolve() / "tiles/evaluation-000000/1.webp"
    assert read(folder, candidate_tile, 0, 0, 99) is None
    (tmp_path / "secret.webp").write_text("secret")
    (folder / "tiles" / "link.webp").symlink_to(tmp_path / "secret.webp")
    (folder / "tiles" / "circle.webp").symlink_to(folder / "tiles" / "circle.webp")
    for path in ("../secret.webp", str(tmp_path / "secret.webp"), "tiles/link.webp", "tiles/circle.webp"):
        assert inside(folder, path) is None
    for path in (DATABASE, "tiles", "x" * 5000 + ".webp", "nul\0.webp", "gone.webp", None, 3, b"a.webp"):
        assert inside(folder, path) is None
    edit(folder, "UPDATE candidates SET tile = '../secret.webp'")
    assert read(folder, candidate_tile, 0, 0, 0) is None
    assert not any(c["tile"] for c in read(folder, groups, 0)[0]["candidates"])


def test_looking_at_runs_imports_no_torch():
    modules = "trainer.history, trainer.history.export, trainer.history.housekeeping"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr


def test_a_run_that_cheats_is_found_out_and_a_healthy_or_half_written_one_is_not(tmp_path):
    cheat = write(tmp_path / "cheat", Run(iterations=200, hacked=True, candidates=False))
    (finding,) = [f for f in read(cheat, findings) if f["check"] == "reward-hacking"]
    assert set(finding) == {"check", "severity", "evidence", "advice", "since"}
    healthy = write(tmp_path / "healthy", Run(iterations=200, candidates=False))
    assert read(healthy, findings) == []
    for statement in ("UPDATE info SET value = '{}' WHERE key = 'settings'", "DELETE FROM info", "DROP TABLE metrics"):
        edit(cheat, statement)
        assert read(cheat, findings) == []
