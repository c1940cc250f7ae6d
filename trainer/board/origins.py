"""Whose requests are answered: those of pages that this server has sent, by the names that are its own."""

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from aiohttp import hdrs, web

from ..errors import Refused
from ..serving import is_loopback
from .answers import short

READING = (hdrs.METH_GET, hdrs.METH_HEAD)
SITE, FORWARDED = "Sec-Fetch-Site", "X-Forwarded-Host"
ELSEWHERE = "this server answers its own pages only"


def check(request: web.Request, names: Collection[str]) -> None:
    """The request's Host and Origin.

    A foreign page can make its own name lead to this machine (DNS rebinding), but then sends that name; an address of
    numbers leads where it says. And whatever sends an Origin must come from here: to change something, or to listen.

    Raises:
        Refused: 403.
    """
    name = named(f"//{request.host}").hostname or ""
    if name not in names and not is_address(name):
        raise Refused(403, f"this server is not called {short(name)}: use the address that it was started with")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and named(origin).netloc != request.host:
        raise Refused(403, ELSEWHERE)
    if origin is None and request.method not in READING and request.headers.get(SITE) == "cross-site":
        raise Refused(403, ELSEWHERE)


def check_behind(request: web.Request, listen: str, allowed: str | None) -> None:
    """The same inside ComfyUI, which may stand behind a proxy and have any name.

    What a page cannot fake tells more than the Host then: a browser sends Sec-Fetch-Site to addresses with a
    certificate and to this machine alone, never to a name that somebody has made lead here.

    Args:
        listen: the addresses that ComfyUI listens on, with commas between them.
        allowed: the origin that it was told to answer, "*" for all, None for none.

    Raises:
        Refused: 403.
    """
    if allowed == "*":
        return
    host, origin, site = named(f"//{request.host}"), request.headers.get(hdrs.ORIGIN), request.headers.get(SITE)
    local = all(is_loopback(address.strip()) for address in listen.split(","))
    known = is_own(host.hostname or "", own_names()) or (allowed and is_same(host, named(allowed)))
    if local and not known and site is None:
        remedy = "open it as localhost, by https, or start ComfyUI with --enable-cors-header and its address"
        raise Refused(403, f"this server is not called {short(host.hostname or '')}: {remedy}")
    if origin is None:
        if request.method not in READING and site in ("cross-site", "same-site"):
            raise Refused(403, ELSEWHERE)
    elif site not in ("same-origin", "none") and origin != allowed:
        forwarded = named(f"//{request.headers.get(FORWARDED, '')}")
        if not any(is_same(named(origin), place) for place in (host, forwarded)):
            remedy = "a proxy has to pass Host on, or ComfyUI needs --enable-cors-header with the address of the page"
            raise Refused(403, f"{ELSEWHERE}: {remedy}")


def own_names(*more: str) -> set[str]:
    """What this machine's own browsers call it."""
    return {"localhost", socket.gethostname().lower(), *more}


def is_own(name: str, names: Collection[str]) -> bool:
    return name in names or name.endswith(".localhost") or is_address(name)


def is_same(one: SplitResult, other: SplitResult) -> bool:
    """Whether two addresses name one server; a port that is not said may be any, as ComfyUI itself judges."""
    ports = (one.port, other.port)
    return bool(one.hostname) and one.hostname == other.hostname and (ports[0] == ports[1] or None in ports)


def named(url: str) -> SplitResult:
    """Its parts; none of an address that is none."""
    try:
        found = urlsplit(url)
        found.port  # noqa: B018  # raises for one that is no number
        return found
    except ValueError:  # [ without ]
        return urlsplit("")


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
