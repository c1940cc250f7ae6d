"""The board outside ComfyUI: whom it answers, its files, its process."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from board_server import Served, running
from patience import GUARD, until
from run_folders import Run, write

from trainer.board.app import make_app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Stand-ins for the panel's files."""
    web = tmp_path_factory.mktemp("web")
    for name in ("board.html", "panel/board.mjs", "lib/uplot.mjs", "main.js"):
        (web / name).parent.mkdir(exist_ok=True)
        (web / name).write_text(f"// {name}")
    (web.parent / "secret.txt").write_text("secret")
    (web / "panel" / "link.txt").symlink_to(web.parent / "secret.txt")
    return web


@pytest.fixture(scope="module")
def board(files, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    write(runs / "run", Run(iterations=2))
    with running(make_app(lambda: runs, "127.0.0.1", files)) as served:
        yield served


def test_the_page_and_its_scripts_are_served_and_nothing_else(board):
    for path, name in (
        ("/", "board.html"),
        ("/panel/board.mjs", "panel/board.mjs"),
        ("/lib/uplot.mjs", "lib/uplot.mjs"),
    ):
        answer = board.raw("GET", path)
        assert (answer.status, answer.data.decode()) == (200, f"// {name}")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        again = board.raw("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304
    assert board.raw("GET", "/").headers["Content-Type"].startswith("text/html")
    assert "javascript" in board.raw("GET", "/panel/board.mjs").headers["Content-Type"]
    elsewhere = ["/main.js", "/panel", "/panel/", "/panel/link.txt", "/panel//etc/passwd", "/%2fetc/passwd", "/x"]
    elsewhere += ["/panel/../main.js", "/panel/%2e%2e/main.js", "/lib/..%2fmain.js", "/secret.txt"]
    for path in elsewhere:
        answer = board.raw("GET", path)
        assert answer.status in (403, 404), path
        assert set(answer.json) == {"error"}
    answer = board.raw("POST", "/")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost:8191", "LOCALHOST", "[::1]:8191", "192.168.1.7", "10.0.0.1:80"]
)
def test_addresses_and_this_machines_names_are_answered(board, host):
    assert board.get("/runs", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8191",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::1",
        "a b",
        "@",
        "127.1",
    ],
)
def test_another_name_that_leads_here_is_not_answered(board, host):
    for path in ("/neighbor_grpo/v1/runs", "/", "/neighbor_grpo/v1/events"):
        answer = board.raw("GET", path, headers={"Host": host})
        assert answer.status in (400, 403)
    assert set(board.get("/runs", Host="evil.example").json) == {"error"}


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://[", "http://127.0.0.1"]
)
def test_a_page_from_elsewhere_can_neither_change_nor_read(board, origin):
    for method, path, body in (
        ("PATCH", "/runs/run", {"title": "x"}), ("DELETE", "/runs/run", None), ("GET", "/runs", None),
        ("POST", "/runs/run/control", {"action": "stop"}),
    ):  # fmt: skip
        answer = board.request(method, path, body, {"Origin": origin})
        assert (answer.status, answer.json) == (403, {"error": "this server answers its own pages only"})
    assert board.request("DELETE", "/runs/run", None, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert board.get("/runs/run").json["title"] == "run"


def test_its_own_page_can_change_something(board):
    headers = {"Origin": f"http://127.0.0.1:{board.port}", "Sec-Fetch-Site": "same-origin"}
    assert board.request("PATCH", "/runs/run", {"title": "x"}, headers).json["title"] == "x"
    assert board.request("PATCH", "/runs/run", {"title": ""}, headers).status == 200
    answer = board.request("POST", "/runs/run/control", {"action": "stop"}, headers)
    assert answer.status == 409


def start(*words, **options):
    line = [sys.executable, "-m", "trainer", "board", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes, **options)


def test_a_board_that_is_closed_leaves_no_thread_behind(tmp_path):
    before = {*threading.enumerate()}
    with running(make_app(lambda: tmp_path)) as served:
        served.get("/runs")
        assert any(thread.name.startswith("runs") for thread in {*threading.enumerate()} - before)
    until(lambda: {*threading.enumerate()} <= before, lambda: f"left: {threading.enumerate()}")


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    write(tmp_path / "run", Run(iterations=2))
    process = start(tmp_path, "--port", 0, "--json")
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
        text += line
    served = Served(int(json.loads(text)["url"].rpartition(":")[2]), None)
    assert served.get("/runs").json["total"] == 1
    assert b"<script" in served.raw("GET", "/").data
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=GUARD)
    assert (process.returncode, errors) == (0, "")


def test_mistakes_are_told_in_one_line(tmp_path):
    for words, part in (
        ((tmp_path / "nowhere",), "is no folder"),
        ((tmp_path, "--port", 70000), "cannot be listened on"),
    ):
        process = start(*words)
        _, errors = process.communicate(timeout=GUARD)
        assert process.returncode == 2
        assert part in errors
        assert len(errors.splitlines()) == 1


def test_the_board_imports_no_torch():
    code = "import sys, trainer.cli.board; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr
