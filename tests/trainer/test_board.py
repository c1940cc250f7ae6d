"""The panel's routes over real HTTP, on an app with nothing else in it."""

import csv
import io
import json
import os
import sqlite3
import threading

import board_server
import pytest
from board_server import bare
from run_folders import HELD_OUT, MARKUP, TRAINED, Run, write

from trainer.history.store import DATABASE
from trainer.lock import exclusive

SERVERS = pytest.fixture(board_server.servers)
RUN = Run(iterations=12, planned=20, evaluations=(0, 10), started=1000.0, state="stopped")


class Wishes:
    """A control that remembers what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda **values: self.told.append((name, values))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "run", RUN)
    write(folder / "markup", Run(iterations=2, prompts=(MARKUP,), info={"title": MARKUP}, started=900.0))
    write(folder / "old", Run(iterations=2, version=1, started=None))
    os.utime(folder / "old" / DATABASE, (500, 500))
    return folder


@pytest.fixture(scope="module")
def server(runs):
    with board_server.running(bare(runs)) as served:
        yield served


@pytest.fixture
def own(tmp_path):
    """A server and its runs folder, to change."""
    write(tmp_path / "runs" / "run", Run(iterations=2))
    controls = {}
    with board_server.running(bare(tmp_path / "runs", controls)) as served:
        served.runs, served.controls = tmp_path / "runs", controls
        yield served


def refused(answer, status):
    assert answer.status == status, answer
    assert set(answer.json) == {"error"}
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.json["error"]


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
    assert f"reward/{TRAINED}" in found["metrics"]
    assert found["log"] == [{"iteration": 0, "message": "update skipped: only a test"}]


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
    assert index == {"first": 0, "last": 11, "tiles": list(range(12)), "evaluations": [0, 10]}
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
        (0, 1000, {TRAINED, HELD_OUT}),
        (1, 1001, {TRAINED, HELD_OUT}),
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
    (own.runs / "run/tiles/000000/0-0.webp").write_bytes(b"another picture")
    again = own.get("/runs/run/tiles/0/0/0", If_None_Match=first.headers["ETag"])
    assert (again.status, again.data) == (200, b"another picture")


@pytest.mark.parametrize(
    "path", ["tiles/10/1/99", "tiles/10/9/0", "tiles/1/1/base", "tiles/99/0/0", "tiles/x/0/0", "tiles/0/0/Base",
             "evaluations/10/7/tile", "evaluations/3/0/tile", "tiles/0/0/0/0", "tiles"],
)  # fmt: skip
def test_what_has_no_picture_is_told(server, path):
    refused(server.get(f"/runs/run/{path}"), 404)


LONG = "x" * 5000
OUTSIDE = [
    "..", "%2e%2e", "..%2fsecret", "%2e%2e%2fsecret", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "..%5csecret",
    "%00", "run%00", "run%2f..%2frun", "run%2f", "%ff", "%", "%zz", "%25", ".trash", ".", "link", "C%3a%5c", "run%0a",
    "run ", LONG, "%c0%ae%c0%ae", "\udcff", "٣", "run;a=b", "*", "~", "run%2frun.sqlite",
]  # fmt: skip
TAILS = ["", "/curves", "/groups", "/groups/0", "/tiles/0/0/0", "/evaluations/0", "/export.csv", "/export.json"]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda n: ascii(n[:30]))
def test_no_id_leads_out_of_the_runs_folder(own, name):
    secret = own.runs.parent / "secret"
    write(secret, Run(iterations=1))
    (own.runs / "link").symlink_to(secret)
    before = sorted(str(p) for p in own.runs.parent.rglob("*"))
    for tail in TAILS:
        answer = own.get(f"/runs/{name.replace(' ', '%20')}{tail}")
        assert answer.status in (400, 404), (tail, answer)
        assert "secret" not in answer.data.decode() or "secret" in name
    for method, tail, body in (
        ("DELETE", "", {}), ("PATCH", "", {"title": "x"}), ("POST", "/control", {"action": "stop"}),
    ):  # fmt: skip
        assert own.request(method, f"/runs/{name.replace(' ', '%20')}{tail}", body).status in (400, 404)
    left = [p for p in before if not p.endswith(("-wal", "-shm"))]
    assert [p for p in sorted(str(p) for p in own.runs.parent.rglob("*")) if not p.endswith(("-wal", "-shm"))] == left


@pytest.mark.parametrize(
    "part", ["..", "%2e%2e", "-1", "1e3", "٣", "0x1", "%00", "1%2f2", LONG, "99999999999999999999", " "]
)
@pytest.mark.parametrize(
    "path", ["groups/{}", "tiles/{}/0/0", "tiles/0/{}/0", "tiles/0/0/{}", "evaluations/{}", "evaluations/{}/0/tile",
             "evaluations/0/{}/tile", "export.{}"],
)  # fmt: skip
def test_no_place_of_a_path_takes_anything_but_numbers(server, path, part):
    answer = server.get("/runs/run/" + path.format(part.replace(" ", "%20")))
    assert answer.status in (400, 404)
    if answer.headers["Content-Type"].startswith("application/json"):
        assert set(answer.json) == {"error"}
        assert len(answer.json["error"]) < 300


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "1e3", "0.5", "9" * 30, "%D9%A1", "0x10", "'; DROP TABLE runs", "%00", " 3"]
)
@pytest.mark.parametrize(
    "query", ["runs?offset={}", "runs?limit={}", *(f"runs/run/curves?{p}={{}}" for p in ("points", "from", "to"))]
)
def test_numbers_that_are_none_or_out_of_range_are_told(server, query, value):
    told = refused(server.get("/" + query.format(value.replace(" ", "%20"))), 400)
    assert "must be a whole number from" in told


def test_limits_hold_at_their_ends(server):
    for query in ("/runs?limit=0", "/runs?limit=1001", "/runs/run/curves?points=0", "/runs/run/curves?points=10001"):
        refused(server.get(query), 400)
    for query in ("/runs?limit=1000&offset=1000000000", "/runs/run/curves?points=10000&to=1000000000", "/runs?limit="):
        assert server.get(query).status == 200
    assert "before" in refused(server.get("/runs/run/curves?from=5&to=4"), 400)
    assert server.get("/runs/run/curves?from=500").json["curves"]["loss"]["x"] == []
    assert server.get(f"/runs/run/curves?names={'x,' * 3000}").json["curves"] == {}


OF_A_RUN = "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/runs", "GET, HEAD"), ("PUT", "/runs/run", OF_A_RUN), ("GET", "/runs/run/control", "POST"),
        ("DELETE", "/runs/run/tiles/0/0/0", "GET, HEAD"), ("POST", "/runs/run/export.csv", "GET, HEAD"),
        ("PROPFIND", "/runs/run", OF_A_RUN), ("OPTIONS", "/runs", "GET, HEAD"), ("TRACE", "/runs", "GET, HEAD"),
    ],
)  # fmt: skip
def test_another_method_is_405_and_names_those_there_are(server, method, path, allowed):
    answer = server.request(method, path)
    assert allowed.replace(", ", "") in refused(answer, 405).replace(", ", "")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["", "/", "/nothing", "/runs/", "/runs/run/", "/runs/run/nothing", "/runs/run/control/x", "//runs", "/runs%0a"],
)
def test_another_path_is_404(server, path):
    refused(server.get(path), 404)
    refused(server.request("POST", path, {}), 404)


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


def test_a_run_is_told_what_a_person_wants(own):
    refused(own.request("POST", "/runs/run/control", {"action": "stop"}), 409)
    own.controls["run"] = wishes = Wishes()
    assert own.get("/runs/run").json["controllable"]
    for action in ("pause", "resume", "save", "stop"):
        answer = own.request("POST", "/runs/run/control", {"action": action})
        assert (answer.status, answer.json) == (202, {"action": action})
    own.request("POST", "/runs/run/control", {"action": "change", "learning_rate": 1, "strength": 0.25})
    own.request("POST", "/runs/run/control", {"action": "change", "strength": 0.5, "learning_rate": None})
    assert wishes.told == [
        ("pause", {}), ("resume", {}), ("save", {}), ("stop", {}),
        ("change", {"learning_rate": 1.0, "strength": 0.25}), ("change", {"strength": 0.5}),
    ]  # fmt: skip
    refused(own.request("POST", "/runs/missing/control", {"action": "stop"}), 404)


WRONG = [
    {}, {"action": "explode"}, {"action": "__init__"}, {"action": None}, {"action": ["stop"]}, {"action": "change"},
    {"action": "stop", "strength": 0.3}, {"action": "stop", "more": 1},
    *({"action": "change", "strength": v} for v in (0, -0.1, 1.01, "0.3", True, [0.3], {}, 10**400)),
    *({"action": "change", "learning_rate": v} for v in (0, -1e-4, 1.5, float("nan"), float("inf"))),
    [], "stop", 3, None,
]  # fmt: skip


@pytest.mark.parametrize("wish", WRONG, ids=lambda w: str(w)[:50])
def test_a_wish_that_is_none_is_told_and_nothing_is_done(own, wish):
    own.controls["run"] = wishes = Wishes()
    headers = {"Content-Type": "application/json"}
    refused(own.request("POST", "/runs/run/control", json.dumps(wish), headers), 400)
    assert wishes.told == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None, "application/jsonp"]
)
def test_no_foreign_pages_form_can_change_anything(own, kind):
    own.controls["run"] = wishes = Wishes()
    headers = {"Content-Type": kind} if kind else {}
    refused(own.request("POST", "/runs/run/control", '{"action": "stop"}', headers), 415)
    refused(own.request("PATCH", "/runs/run", '{"title": "x"}', headers), 415)
    assert wishes.told == []
    assert own.get("/runs/run").json["title"] == "run"


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 10_000, "nonsense", b"\xff\xfe", '{"action": stop}'], ids=lambda t: str(t[:9])
)
def test_a_body_that_is_no_json_is_told(own, text):
    refused(own.request("POST", "/runs/run/control", text, {"Content-Type": "application/json"}), 400)


def test_a_large_body_is_not_read_to_its_end(own):
    refused(own.request("POST", "/runs/run/control", {"action": "x" * 100_000}), 413)


def test_a_body_that_does_not_come_is_not_waited_for(own, monkeypatch):
    monkeypatch.setattr("trainer.board.answers.BODY_TIMEOUT", 0.1)
    headers = {"Content-Type": "application/json", "Content-Length": "100"}
    refused(own.request("POST", "/runs/run/control", "{", headers), 408)


def test_a_run_is_renamed(own):
    answer = own.request("PATCH", "/runs/run", {"title": f"  {MARKUP} ünï "})
    assert (answer.status, answer.json["title"], answer.json["id"]) == (200, f"{MARKUP} ünï", "run")
    assert own.get("/runs/run").json["title"] == f"{MARKUP} ünï"
    for title in (3, None, ["x"], "x" * 201, "a\nb", "a\0b", "a\u2028b", "\ud800"):
        refused(own.request("PATCH", "/runs/run", {"title": title}), 400)
    refused(own.request("PATCH", "/runs/run", {"name": "x"}), 400)
    assert own.request("PATCH", "/runs/run", {"title": ""}).json["title"] == "run"


def test_a_run_is_moved_to_the_trash_but_not_while_it_is_trained(own):
    with exclusive(str((own.runs / "run").absolute()), "busy"):
        found = own.get("/runs/run").json
        assert (found["live"], found["state"]) == (True, "complete")
        assert "stop it before" in refused(own.request("DELETE", "/runs/run", {}), 409)
    answer = own.request("DELETE", "/runs/run")
    assert (answer.status, answer.data) == (204, b"")
    assert (own.runs / ".trash" / "run" / DATABASE).is_file()
    refused(own.get("/runs/run"), 404)
    refused(own.request("DELETE", "/runs/run"), 404)
    assert own.get("/runs").json == {"runs": [], "total": 0}


def test_nothing_changes_by_asking(own):
    for path in (
        "",
        "/curves",
        "/groups",
        "/groups/0",
        "/tiles/0/0/0",
        "/export.csv",
        "/control?action=stop",
        "?title=x",
    ):
        own.get(f"/runs/run{path}")
    answer = own.get("/runs/run").json
    assert (answer["title"], answer["iteration"]) == ("run", 2)
    assert not (own.runs / ".trash").exists()


def test_missing_half_written_and_broken_runs_are_told(own, monkeypatch):
    monkeypatch.setattr("trainer.history.store.PATIENCE", 0.05)
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
    assert own.get("/runs/empty/groups").json == {"first": None, "last": None, "tiles": [], "evaluations": []}
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
    asked, go_on = threading.Event(), threading.Event()

    def slow(_):
        asked.set()
        assert go_on.wait(30)
        return []

    monkeypatch.setattr("trainer.history.summaries", slow)
    thread = threading.Thread(target=own.get, args=("/runs",))
    thread.start()
    assert asked.wait(30)
    assert own.get("/runs/run").status == 200
    go_on.set()
    thread.join()


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
