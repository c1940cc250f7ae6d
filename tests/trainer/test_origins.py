"""Whose requests the routes answer inside ComfyUI: behind proxies and under any name, but no foreign page's."""

import pytest
from aiohttp.test_utils import make_mocked_request

from trainer.board.origins import check_behind
from trainer.errors import Refused

LOCAL, EVERYWHERE = "127.0.0.1", "0.0.0.0,::"
HERE = {"Host": "127.0.0.1:8188"}
EVIL = {"Host": "evil.example:8188"}
FORGED = "http://evil.example"


def check(method: str, headers: dict, listen: str = LOCAL, allowed: str | None = None) -> None:
    check_behind(make_mocked_request(method, "/neighbor_grpo/v1/runs", headers), listen, allowed)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "listen", "allowed"),
    [
        (HERE, LOCAL, None),
        ({"Host": "localhost:8188", "Origin": "http://localhost:8188"}, LOCAL, None),
        ({"Host": "[::1]:8188", "Origin": "http://[::1]:8188", "Sec-Fetch-Site": "same-origin"}, LOCAL, None),
        # another computer's browser, by name and without a certificate
        ({"Host": "gpu-box.lan:8188", "Origin": "http://gpu-box.lan:8188"}, EVERYWHERE, None),
        # a proxy with a certificate that passes Host on, and one that does not
        ({"Host": "comfy.example", "Origin": "https://comfy.example", "Sec-Fetch-Site": "same-origin"}, LOCAL, None),
        (
            {"Host": "comfyui:8188", "Origin": "https://comfy.example", "Sec-Fetch-Site": "same-origin"},
            EVERYWHERE,
            None,
        ),
        # proxies without one
        ({"Host": "comfy.lan", "Origin": "http://comfy.lan:8080"}, EVERYWHERE, None),
        ({"Host": "comfyui", "X-Forwarded-Host": "comfy.lan", "Origin": "http://comfy.lan"}, EVERYWHERE, None),
        # what ComfyUI was told to answer
        ({"Host": "comfy.lan", "Origin": "http://comfy.lan"}, LOCAL, "http://comfy.lan"),
        ({**HERE, "Origin": "http://app.lan", "Sec-Fetch-Site": "cross-site"}, LOCAL, "http://app.lan"),
        ({**EVIL, "Origin": FORGED}, LOCAL, "*"),
    ],
)
def test_own_pages_are_answered_wherever_they_come_from(method, headers, listen, allowed):
    check(method, headers, listen, allowed)


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "POST"])
@pytest.mark.parametrize(
    ("headers", "listen", "allowed"),
    [
        ({**HERE, "Origin": FORGED}, LOCAL, None),
        ({**HERE, "Origin": "null"}, LOCAL, None),
        ({**HERE, "Origin": "http://["}, LOCAL, None),
        ({**HERE, "Origin": "http://127.0.0.1:9000"}, LOCAL, None),
        ({**HERE, "Origin": FORGED}, LOCAL, "http://app.lan"),
        ({**HERE, "Sec-Fetch-Site": "cross-site"}, LOCAL, None),
        ({"Host": "192.168.1.5:8188", "Origin": FORGED}, EVERYWHERE, None),
        ({"Host": "gpu-box.lan:8188", "Origin": FORGED, "Sec-Fetch-Site": "cross-site"}, EVERYWHERE, None),
    ],
)
def test_a_foreign_page_changes_nothing(method, headers, listen, allowed):
    with pytest.raises(Refused) as refusal:
        check(method, headers, listen, allowed)
    assert refusal.value.status == 403


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("more", [{}, {"Origin": "http://evil.example:8188"}, {"X-Forwarded-Host": "evil.example"}])
def test_a_name_that_somebody_has_made_lead_here_is_not_answered(method, more):
    with pytest.raises(Refused, match=r"not called 'evil.example'.*--enable-cors-header"):
        check(method, EVIL | more)


def test_a_link_from_another_page_may_be_followed():
    check("GET", {**HERE, "Sec-Fetch-Site": "cross-site"})
