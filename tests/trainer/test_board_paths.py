"""Requests that nobody should make: ids that lead elsewhere, numbers that are none, other methods and paths."""

import board_server
import pytest
from board_server import refused
from run_folders import Run, write

runs = pytest.fixture(board_server.several, scope="module")
server = pytest.fixture(board_server.serving, scope="module")
own = pytest.fixture(board_server.owned)


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
    write(secret, Run(iterations=1, group_size=2))
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
