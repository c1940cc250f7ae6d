"""What a person changes through the board: wishes of a run at work, titles, the trash; and who cannot."""

import json

import board_server
import pytest
from board_server import Wishes, refused
from run_folders import MARKUP

from trainer.lock import exclusive
from trainer.store.database import DATABASE

own = pytest.fixture(board_server.owned)


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
