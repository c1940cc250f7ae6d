"""The panel's routes over real HTTP, on an app with nothing else in it."""

import csv
import io
import sqlite3
import threading

import board_server
import pytest
from board_server import refused
from patience import GUARD
from run_folders import HELD_OUT, MARKUP, TRAINED, TRIED, Run, picture, write

from trainer.history.strengths import keep
from trainer.store.database import DATABASE

runs = pytest.fixture(board_server.several, scope="module")
server = pytest.fixture(board_server.serving, scope="module")
own = pytest.fixture(board_server.owned)


def test_runs_are_listed_in_pages_newest_first(server, runs):
    answer = server.get("/runs").json
    assert [run["id"] for run in answer["runs"]] == ["run", "markup", "old"]
    assert answer["total"] == 3
    assert answer["runs"][0] == {
        "id": "run", "title": "run", "state": "stopped", "live": False, "controllable": False, "iteration": 12,
        "iterations": 20, "started": 1000.0, "updated": answer["runs"][0]["updated"], "model": "embedded",
        "trained": [TRAINED], "held_out": [HELD_OUT], "path": str(runs.resolve() / "run"),
    }  # fmt: skip
    assert answer["runs"][1]["title"] == MARKUP
    page = server.get("/runs?offset=1&limit=1").json
    assert ([run["id"] for run in page["runs"]], page["total"]) == (["markup"], 3)
    assert server.get("/runs?offset=99").json["runs"] == []


def test_browsers_keep_nothing_but_pictures(server):
    for path in ("/runs", "/runs/run", "/runs/run/curves", "/runs/missing.png", "/runs/run/groups/99", "/nothing.png"):
        assert server.get(path).headers["Cache-Control"] == "no-cache"


def test_a_run_is_described(server):
    found = server.get("/runs/markup").json
    assert (found["id"], found["prompts"], found["changes"]) == ("markup", [MARKUP], [])
    assert found["settings"]["optimizer"]["learning_rate"] == 1e-3
    assert found["limits"] == {name: {"above": 0, "most": 1} for name in ("learning_rate", "strength")}
    assert f"reward/{TRAINED}" in found["metrics"]
    assert found["log"] == [{"iteration": 0, "message": "update skipped: only a test"}]


def test_the_strengths_of_its_lora_are_told_with_it(own):
    assert own.get("/runs/run").json["strengths"] is None
    keep(own.runs / "run", TRIED, 12)
    told = own.get("/runs/run").json["strengths"]
    assert [row["strength"] for row in told["strengths"]] == [0.4, 0.8, 1.2]
    assert told["recommended"] == 0.8


def test_curves_are_those_of_the_store(server, runs):
    found = server.get("/runs/run/curves?names=loss,grad_norm,nothing").json
    assert found["iteration"] == 12
    assert set(found["curves"]) == {"loss", "grad_norm"}
    database = sqlite3.connect(runs / "run" / DATABASE)
    values = dict(database.execute("SELECT iteration, value FROM metrics WHERE name = 'grad_norm'"))
    database.close()
    assert values[5] is None  # as written by run_folders
    assert found["curves"]["grad_norm"] == {"x": list(range(12)), "mean": [values[i] for i in range(12)], "step": 1}
    part = server.get("/runs/run/curves?names=loss&from=3&to=8&points=2").json["curves"]["loss"]
    assert (part["x"], part["step"], set(part)) == ([0, 8], 8, {"x", "mean", "low", "high", "step"})
    assert len(server.get("/runs/run/curves").json["curves"]) == 20


def test_groups_tiles_and_evaluations_are_found(server):
    index = server.get("/runs/run/groups").json
    assert index == {"first": 0, "last": 11, "tiles": list(range(12)), "evaluations": [0, 10], "gone": 0}
    found = server.get("/runs/run/groups/10").json
    assert (found["iteration"], [g["slot"] for g in found["groups"]]) == (10, [0, 1])
    group = found["groups"][1]
    assert (group["base"], len(group["candidates"]), len(group["points"]), len(group["distances"])) == (
        True,
        12,
        12,
        12,
    )
    assert set(group["candidates"][0]) == {"candidate", "advantage", "anchor", "tile", "scores"}
    assert server.get("/runs/old/groups/1").json["groups"][0]["points"] is None
    shown = server.get("/runs/run/evaluations/10").json
    assert [(p["number"], p["seed"], set(p["scores"])) for p in shown["pictures"]] == [
        (0, "1000", {TRAINED, HELD_OUT}),
        (1, "1001", {TRAINED, HELD_OUT}),
    ]
    for path in ("groups/12", "evaluations/3", "groups/999999999", "groups/-1", "groups/1.5", "groups/x"):
        refused(server.get(f"/runs/run/{path}"), 404)


def test_the_diagnosis_is_told(own):
    assert own.get("/runs/run/diagnosis").json == {"findings": []}
    write(own.runs / "hacked", Run(iterations=200, hacked=True, candidates=False))
    found = own.get("/runs/hacked/diagnosis").json["findings"]
    assert "reward-hacking" in [f["check"] for f in found]


TILES = {"tiles/10/1/3": "tiles/000010/1-3", "tiles/10/1/base": "tiles/000010/1-base"}
TILES |= {"evaluations/10/1/tile": "tiles/evaluation-000010/1"}


@pytest.mark.parametrize("path", TILES)
def test_a_tile_is_sent_once(server, runs, path):
    answer = server.get(f"/runs/run/{path}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/webp")
    assert answer.data == (runs / "run" / f"{TILES[path]}.webp").read_bytes()
    assert answer.headers["Cache-Control"] == "private, max-age=60"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = server.get(f"/runs/run/{path}", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.data, again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    assert server.get(f"/runs/run/{path}", If_None_Match='"another"').data == answer.data
    head = server.request("HEAD", f"/runs/run/{path}")
    assert (head.status, head.data, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])


def test_a_tile_that_is_drawn_anew_is_sent_anew(own):
    first = own.get("/runs/run/tiles/0/0/0")
    picture(own.runs / "run/tiles/000000/0-0.webp", 80, 0, 0.5)
    again = own.get("/runs/run/tiles/0/0/0", If_None_Match=first.headers["ETag"])
    assert (again.status, again.data) == (200, (own.runs / "run/tiles/000000/0-0.webp").read_bytes())


@pytest.mark.parametrize(
    "path", ["tiles/10/1/99", "tiles/10/9/0", "tiles/1/1/base", "tiles/99/0/0", "tiles/x/0/0", "tiles/0/0/Base",
             "evaluations/10/7/tile", "evaluations/3/0/tile", "tiles/0/0/0/0", "tiles"],
)  # fmt: skip
def test_what_has_no_picture_is_told(server, path):
    refused(server.get(f"/runs/run/{path}"), 404)


def test_an_export_is_a_file_with_everything(server):
    answer = server.get("/runs/run/export.csv")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''run.csv"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(answer.data.decode())))
    assert (len(rows), len(rows[0]), rows[0][0], rows[1][0]) == (13, 21, "iteration", "0")
    answer = server.get("/runs/run/export.json")
    assert len(answer.json["groups"]) == 12
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    head = server.request("HEAD", "/runs/run/export.json")
    assert (head.status, head.headers["Content-Length"]) == (200, answer.headers["Content-Length"])
    refused(server.get("/runs/run/export.exe"), 404)


def test_missing_half_written_and_broken_runs_are_told(own, monkeypatch):
    monkeypatch.setattr("trainer.store.database.READING", 0.05)
    for name in ("empty", "garbage", "locked"):
        (own.runs / name).mkdir()
    (own.runs / "empty" / DATABASE).touch()
    (own.runs / "garbage" / DATABASE).write_bytes(b"garbage" * 1000)
    owner = sqlite3.connect(own.runs / "locked" / DATABASE)
    owner.executescript("CREATE TABLE info (key, value); BEGIN EXCLUSIVE")
    states = {run["id"]: run["state"] for run in own.get("/runs").json["runs"]}
    assert (states["run"], states["empty"]) == ("complete", "interrupted")
    assert states["garbage"].startswith("unreadable")
    assert states["locked"].startswith("unreadable")
    assert own.get("/runs/empty/curves").json == {"iteration": 0, "curves": {}}
    assert own.get("/runs/empty/groups").json == {
        "first": None,
        "last": None,
        "tiles": [],
        "evaluations": [],
        "gone": 0,
    }
    for tail in ("", "/curves", "/groups/0", "/export.csv"):
        refused(own.get(f"/runs/garbage{tail}"), 422)
        answer = own.get(f"/runs/locked{tail}")
        refused(answer, 503)
        assert answer.headers["Retry-After"] == "1"
    owner.close()
    assert own.get("/runs/locked").status == 200
    refused(own.get("/runs/gone/curves"), 404)


def test_a_folder_without_runs_has_none_and_another_may_take_its_place(tmp_path):
    place = {"runs": tmp_path / "nowhere"}
    app = board_server.web.Application()
    app.add_routes(board_server.Board(lambda: place["runs"]).routes())
    with board_server.running(app) as server:
        assert server.get("/runs").json == {"runs": [], "total": 0}
        write(tmp_path / "there" / "run", Run(iterations=1))
        place["runs"] = tmp_path / "there"
        assert server.get("/runs").json["total"] == 1


def test_a_failure_is_500_without_its_details(own, monkeypatch):
    def fail(_):
        raise RuntimeError("/a/secret/path")

    monkeypatch.setattr("trainer.history.summaries", fail)
    assert refused(own.get("/runs"), 500) == "the server failed: RuntimeError"


def test_a_slow_question_keeps_nobody_waiting(own, monkeypatch):
    asked, go_on, answers = threading.Event(), threading.Event(), []

    def slow(_):
        asked.set()
        assert go_on.wait(GUARD)
        return []

    monkeypatch.setattr("trainer.history.summaries", slow)
    thread = threading.Thread(target=lambda: answers.append(own.get("/runs")))
    thread.start()
    assert asked.wait(GUARD)
    assert own.get("/runs/run").status == 200
    go_on.set()
    thread.join()
    assert answers[0].status == 200  # it was not over before


def test_the_routes_are_served_under_another_prefix_as_well(runs):
    """As ComfyUI does: each at /x and at /api/x."""
    app, table = board_server.web.Application(), board_server.Board(lambda: runs).routes()
    twice = board_server.web.RouteTableDef()
    for route in table:
        twice.route(route.method, "/api" + route.path)(route.handler, **route.kwargs)
    app.add_routes(twice)
    app.add_routes(table)
    with board_server.running(app) as server:
        for prefix in ("", "/api"):
            base = prefix + board_server.PREFIX
            assert server.raw("GET", f"{base}/runs").json["total"] == 3
            assert server.raw("HEAD", f"{base}/runs").status == 200
            refused(server.raw("GET", f"{base}/nothing"), 404)
            refused(server.raw("PUT", f"{base}/runs"), 405)
