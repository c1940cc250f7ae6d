"""Whatever a server of rewards answers is a score, a wait, or one line with what to do: HTTP, TLS, JSON, words."""

import http.server
import json
import logging
import math
import shutil
import ssl
import subprocess
import threading

import pytest
import torch
from patience import GUARD
from scripted import OFFER, SCORED, endless, raw, scripted

from trainer.rewards import RewardError, RewardUnavailable, build
from trainer.rewards import transport as transport_module
from trainer.rewards.remote import RemoteReward

PICTURE = torch.full((1, 3, 8, 8), 0.5)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_PAUSE", 0.01)


def refusal(url: str, **options) -> str:
    """The one line with which a score ends for good."""
    with pytest.raises(RewardError) as caught:
        RemoteReward(url, retries=0, **options).score(PICTURE, ["a"])
    assert not isinstance(caught.value, RewardUnavailable), caught.value
    return one_line(caught.value)


def one_line(error: Exception) -> str:
    """Of any length that a person reads, and of letters that every console and database takes."""
    line = str(error)
    assert line.isprintable()
    assert len(line) < 600
    line.encode("utf-8")
    return line


def scores(value) -> tuple:
    return (200, {}, json.dumps({"scores": {"a": value}}).encode())


DEEP = b'{"scores": ' + b"[" * 900 + b"]" * 900 + b"}"
ANSWERS = {
    "400 digits": (b'{"scores": {"a": [1%s]}}' % (b"0" * 400), "is no reward server: it answered {'scores'"),
    "5000 digits": (b'{"scores": {"a": [1%s]}}' % (b"0" * 5000), "answered no JSON object but b'"),
    "deep": (DEEP, "is no reward server: it answered {'scores': [[["),
    "too deep": (b'{"scores": ' + b"[" * 10**6, "answered no JSON object but b'"),
    "scores in words": (b'{"scores": {"a": ["0.5"]}}', "is no reward server"),
    "truth": (b'{"scores": {"a": "1"}}', "is no reward server"),
    "a key twice": (b'{"scores": {"a": [0.5]}, "scores": {"a": [1.0]}}', "answered no JSON object but b'"),
    "Latin-1": ('{"scores": {"ä": [0.5]}}'.encode("latin-1"), "answered no JSON object but b'"),
    "half a surrogate pair": (b'{"scores": {"\\ud800": [0.5]}}', "is no reward server"),
    "a megabyte": (b'{"scores": {"%s": [0.5]}}' % (b"a" * 2**20), "is no reward server"),
    "nothing": (b"", "answered no JSON object but b''"),
}


@pytest.mark.parametrize("case", list(ANSWERS))
def test_an_answer_without_the_scores_is_one_line(case):
    body, message = ANSWERS[case]
    with scripted(OFFER, (200, {}, body)) as (url, _):
        assert message in refusal(url)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1e39", "null"])
def test_a_score_that_float32_does_not_have_is_nan(number):
    with scripted(OFFER, (200, {}, b'{"scores": {"a": [%s]}}' % number.encode())) as (url, _):
        assert math.isnan(RemoteReward(url).score(PICTURE, ["a"]).item())


def test_a_score_with_a_byte_order_mark_or_in_utf_16_is_read():
    for body in (b"\xef\xbb\xbf" + json.dumps(SCORED[2]).encode(), json.dumps(SCORED[2]).encode("utf-16")):
        with scripted(OFFER, (200, {}, body)) as (url, _):
            assert RemoteReward(url).score(PICTURE, ["a"]).tolist() == [0.5]


OFFERS = {
    "limits in words": ({"rewards": [{"name": "a"}], "limits": {"images": "many", "bytes": 1}}, "is no reward server"),
    "limits without end": (b'{"rewards": [{"name": "a"}], "limits": {"images": 1e400, "bytes": 1}}', "is no reward"),
    "NaN": (b'{"rewards": [{"name": "a"}], "limits": {"images": NaN, "bytes": 1}}', "is no reward server"),
    "no rewards": ({"rewards": [], "limits": {"images": 1, "bytes": 1}}, "has none: name one of them as reward"),
    "a million rewards": ({"rewards": [{"name": "a" * 9}] * 10**5, "limits": {"images": 1, "bytes": 1}}, "has aaaa"),
    "names of many lines": (
        {"rewards": [{"name": "a\n\x1b[2J"}, {"name": "\ud800"}], "limits": {"images": 1, "bytes": 1}},
        "has a [2J,",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(OFFERS))
def test_an_offer_that_cannot_be_taken_is_one_line(case):
    body, message = OFFERS[case]
    with scripted((200, {}, body)) as (url, _):
        assert message in refusal(url)


STATUSES = {
    "401": ((401, {}, {"error": "no"}), "answered 401: no (token_env must name the environment variable"),
    "403": ((403, {}, {"error": "no"}), "answered 403: no (the token in token_env's environment variable"),
    "404": ((404, {}, b"<html>"), "answered 404: Not Found (is url the server's address?)"),
    "a redirect": ((302, {"Location": "http://b/\x7f" + "b" * 5000}, b""), "answered 302: Found (it leads to 'http://b/"),
    "a page of a proxy": ((200, {"Content-Type": "text/html"}, b"<html>"), "b'<html>' (a web page: is url"),
    "OpenAI's error": ((400, {}, {"error": {"message": "no\nmodel", "code": 3}}), "answered 400: no model"),
    "an error of many lines": ((422, {}, {"error": "a\n\x1b[31mb\u2028c" * 1000}), "answered 422: a [31mb ca"),
    "an error of no words": ((422, {}, {"error": [[[[1]]] * 100]}), "answered 422: [[[[...]]"),
    "half an emoji": ((422, {}, b'{"error": "a \\ud83d"}'), "answered 422: a"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(STATUSES))
def test_a_refusal_is_one_line_with_what_to_do(case):
    answer, message = STATUSES[case]
    with scripted(OFFER, answer) as (url, _):
        assert message in refusal(url)


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46" * 9,
    "a header of a megabyte": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**20,
    "a header without a name": b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
    "a status of many digits": b"HTTP/1.1 99999999999 OK\r\n\r\n",
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_what_is_no_http_is_one_line_and_nobody_waits_for_it(case):
    assert "answered no proper HTTP (" in refusal(raw(BROKEN[case]))


def test_headers_without_an_end_end(monkeypatch):
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT", 0.5)
    assert "answered no proper HTTP (" in refusal(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 99), timeout=0.5)
    early = endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.01)
    with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.2 s"):
        RemoteReward(early, retries=0, timeout=0.2).score(PICTURE, ["a"])


def test_cookies_and_headers_of_no_use_are_looked_past(caplog):
    odd = {"Set-Cookie": "=;;\x80 a[]=b; Max-Age=x", "Content-Type": "\xff/\xff; charset=nonsense", "Link": "<::>; rel"}
    with caplog.at_level(logging.WARNING), scripted(OFFER, (200, odd, SCORED[2])) as (url, _):
        assert RemoteReward(url).score(PICTURE, ["a"]).tolist() == [0.5]


def test_https_at_a_server_without_it_is_told_at_once():
    with scripted(OFFER) as (url, _):
        assert "does not speak TLS (" in refusal(url.replace("http:", "https:"))


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl makes a certificate")
def test_a_certificate_that_nobody_signed_is_told_at_once(tmp_path):
    make = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout key.pem -out cert.pem".split()
    subprocess.run(["openssl", *make], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        assert "shows an untrusted certificate (" in refusal(f"https://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_a_name_that_nobody_has_is_waited_for():
    with pytest.raises(RewardUnavailable, match="cannot be reached") as caught:
        RemoteReward("http://no-such-host.invalid:80", retries=0, timeout=GUARD).score(PICTURE, ["a"])
    one_line(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://a b", "http://[::1", "http://a..b", f"http://{'a' * 300}.b", "http://\ud800", "http://a\x00b", "http://%"],
)
def test_an_address_that_is_none_is_told_before_the_run(url):
    with pytest.raises(RewardError, match=r"write http://host:port") as caught:
        build("remote", {"url": url}, "cpu")
    one_line(caught.value)


@pytest.mark.parametrize("token", ["two\nlines", "a\x7fb"])
def test_a_token_that_no_header_holds_is_told_before_the_run(token, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", token)
    with pytest.raises(RewardError, match=r"MY_TOKEN.*control characters"):
        build("remote", {"url": "http://127.0.0.1:9", "token_env": "MY_TOKEN"}, "cpu")
