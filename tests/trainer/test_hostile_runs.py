"""A run folder that was made to harm is read as far as it is whole, or refused in words; others are not held up."""

import io
import os
import shutil
import sys

import pytest
from hostile_runs import HOSTILE, SCHEMAS, SPECIAL, VALUES
from run_folders import Run, write
from run_reading import edit, read

from trainer import history
from trainer.history import StoreError, export
from trainer.history.housekeeping import set_title
from trainer.history.picture import inside, shown
from trainer.report.page import report
from trainer.store.database import DATABASE, damage
from trainer.store.facts import LARGEST

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets are POSIX's")
SLOW = ("million", "300,000", "100,000 scores", "64 MB", "4,000 candidates")  # to make; tests/faults tries them
QUICK = [name for name in HOSTILE if not any(word in name for word in SLOW)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "whole", Run(iterations=3, group_size=4, evaluations=(0, 2)))


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "whole")
    return shutil.copytree(whole, tmp_path / "odd")


def everything(folder):
    """What each reader says: "" or why not."""
    questions = [history.details, history.curves, history.index, history.findings]
    questions += [lambda s: history.groups(s, 0), lambda s: history.candidate_tile(s, 0, 0, 0)]
    questions += [lambda s: export.write_csv(s, io.StringIO()), lambda s: export.write_json(s, io.StringIO())]
    for ask in [*(lambda q=q: read(folder, q) for q in questions), lambda: report(folder)]:
        try:
            ask()
            yield ""
        except StoreError as error:
            yield str(error)


@pytest.mark.parametrize("name", QUICK)
def test_every_reader_comes_to_an_end_and_the_others_are_listed(folder, name):
    HOSTILE[name](folder)
    states = {run.id: run.state for run in history.summaries(folder.parent)}
    assert states["whole"] == "complete"
    for words in everything(folder):
        assert len(words) < 600
        assert "\n" not in words


@pytest.mark.parametrize("name", [*(n for n in SPECIAL if n.startswith(DATABASE) and "folder" not in n), *SCHEMAS])
def test_what_is_no_plain_file_or_no_table_is_refused_in_words(folder, name):
    HOSTILE[name](folder)
    if name in ("tables without keys, values of every kind", "one page for all"):
        assert any(words == "" for words in everything(folder))
        return
    said = "no plain file|no table|is computed|malformed database schema|more than 100 tables"
    with pytest.raises(StoreError, match=said):
        read(folder, history.details)
    with pytest.raises(StoreError, match=said):
        set_title(folder, "x")
    assert damage(folder)


def test_a_journal_that_names_another_file_deletes_nothing(folder):
    (folder.parent / "victim").touch()
    HOSTILE["a journal that names another file"](folder)
    with pytest.raises(StoreError, match="names another file"):
        set_title(folder, "x")
    assert (folder.parent / "victim").exists()


def test_a_question_without_end_is_cut_off(folder):
    with pytest.raises(StoreError, match="takes too long"), history.reading(folder, seconds=0.05) as store:
        store._database.execute("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")


@pytest.mark.parametrize("table", ["metrics", "groups", "candidates", "scores", "evaluations"])
def test_a_value_of_many_megabytes_is_too_large(folder, table):
    text = {"metrics": "value", "groups": "prompt", "candidates": "tile", "scores": "value", "evaluations": "prompt"}
    edit(folder, f"UPDATE {table} SET {text[table]} = zeroblob(2000000)")
    if sys.version_info < (3, 11):
        pytest.skip("this Python cannot tell SQLite how long a value may be")
    with pytest.raises(StoreError, match="too large"):
        read(folder, lambda store: export.write_json(store, io.StringIO()))


def test_more_names_than_a_run_has_are_refused(folder):
    rows = ", ".join(f"('name {n}', 0, 1.0)" for n in range(2000))
    edit(folder, f"INSERT INTO metrics VALUES {rows}")
    with pytest.raises(StoreError, match="more than 1,000 rows"):
        history.summary(folder)


def test_rows_of_other_kinds_are_left_out(folder):
    edit(
        folder,
        "INSERT INTO metrics VALUES ('loss', 2000000000, 1.0), ('loss', -5, 1.0), (x'00', 3, 1.0)",
        "INSERT INTO candidates VALUES (0, 'x', 0, 0.5, 0, ''), (0, 0, -1, 0.5, 0, ''), (0, 0, 77, 'high', 0, '')",
    )
    assert history.summary(folder).iteration == 3
    (first, _) = read(folder, history.groups, 0)
    assert [c["candidate"] for c in first["candidates"]] == [0, 1, 2, 3]


def test_numbers_that_no_sum_can_hold_are_missing(folder):
    edit(folder, f"UPDATE metrics SET value = {10 * LARGEST} WHERE name = 'loss' AND iteration = 1")
    assert read(folder, history.curves, ["loss"])["loss"].mean[1] is None
    assert read(folder, history.curves, ["loss"])["loss"].mean[0] is not None


def test_a_store_that_was_slow_is_not_waited_for_again(folder, monkeypatch):
    looks = []

    def slow(folder, seconds):
        looks.append(folder.name)
        raise StoreError("it takes too long")

    monkeypatch.setattr("trainer.history.runs.read", slow)
    for _ in range(3):
        assert {run.state for run in history.summaries(folder.parent)} == {"unreadable: it takes too long"}
    assert sorted(looks) == ["odd", "whole"]


@pytest.mark.parametrize("name", [name for name in VALUES if name.startswith("a tile")])
def test_a_picture_that_is_none_or_too_large_is_not_shown(folder, name):
    assert read(folder, history.candidate_tile, 0, 0, 0) is not None
    HOSTILE[name](folder)
    assert read(folder, history.candidate_tile, 0, 0, 0) is None


@pytest.mark.parametrize(("kind", "size"), [("lossy", (64, 48)), ("lossless", (37, 41)), ("with alpha", (64, 48))])
def test_sizes_are_those_that_pillow_reads(tmp_path, kind, size):
    from PIL import Image

    picture = Image.new(
        "RGBA" if kind == "with alpha" else "RGB", size, (200, 30, 30, 90)[: 4 if "alpha" in kind else 3]
    )
    for edge, seen in ((max(size), True), (max(size) - 1, False)):
        picture.save(tmp_path / "a.webp", "WEBP", lossless=kind == "lossless")
        path = inside(tmp_path, "a.webp")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.history.picture.EDGE", edge)
            assert (shown(path) is not None) == seen


def test_a_lock_that_leads_elsewhere_makes_nothing_there(folder):
    from trainer.lock import exclusive

    os.symlink(folder.parent / "made", folder / ".lock")
    with pytest.raises(OSError, match="links"), exclusive(str(folder), "busy"):
        pass
    assert not (folder.parent / "made").exists()
