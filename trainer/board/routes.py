"""The routes: what they take, whom they ask, what they answer."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from aiohttp import hdrs, web

from .. import history
from ..errors import Refused
from ..history import Reader, Summary, export, housekeeping
from ..store.foreign import LOOK, WHOLE
from .answers import LARGEST, Handler, answered, body, encoded, error, number, place, short
from .control import CHANGEABLE, LIMITS, Control, obey, title_of
from .files import attachment, tile

PREFIX = "/neighbor_grpo/v1"
THREADS = 6  # that read run folders
ONE_RUN = 2  # of them at most for questions about the same run, so that a slow one leaves threads to the others
PAGE, LONGEST_PAGE = 100, 1000  # runs
MOST_POINTS = 10_000  # of a curve
T = TypeVar("T")


class Board:
    """What the routes answer from.

    Args:
        runs: gives the runs folder, asked anew at every request.
        controls: of the runs at work in this process, by their id.
    """

    def __init__(self, runs: Callable[[], Path], controls: Mapping[str, Control] | None = None):
        self.runs = runs
        self.controls = {} if controls is None else controls
        self.readers = ThreadPoolExecutor(THREADS, "runs")
        self.turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by run, "" is the list's

    def table(self) -> list[tuple[str, str, Handler]]:
        run, at = "/runs/{run}", "/{iteration}"
        return [
            ("GET", "/runs", self.list),
            ("GET", run, self.details),
            ("PATCH", run, self.rename),
            ("DELETE", run, self.delete),
            ("POST", f"{run}/control", self.control),
            ("GET", f"{run}/curves", self.curves),
            ("GET", f"{run}/groups", self.index),
            ("GET", f"{run}/groups{at}", self.groups),
            ("GET", f"{run}/tiles{at}/{{slot}}/{{candidate}}", self.tile),
            ("GET", f"{run}/evaluations{at}", self.evaluation),
            ("GET", f"{run}/evaluations{at}/{{number}}/tile", self.evaluation_tile),
            ("GET", f"{run}/diagnosis", self.diagnosis),
            ("GET", f"{run}/export.{{kind}}", self.export),
        ]

    def routes(self) -> list[web.RouteDef]:
        """All of them, and a last one under the prefix that tells what is wrong with any other request."""
        routes = [web.route(method, PREFIX + path, answered(handler)) for method, path, handler in self.table()]
        return [*routes, web.route("*", PREFIX + "{tail:(?s:/.*)?}", answered(self.nothing))]

    async def aside(self, request: web.Request, function: Callable[[], T]) -> T:
        """Off the event loop, as one of ONE_RUN about the request's run."""
        turn = self.turns.setdefault(request.match_info.get("run", ""), asyncio.Semaphore(ONE_RUN))
        async with turn:
            return await asyncio.get_running_loop().run_in_executor(self.readers, function)

    async def ask(self, request: web.Request, question: Callable[[Reader], T], seconds: float = LOOK) -> T:
        """What `question` finds in the store of the request's run, within `seconds`."""

        def look() -> T:
            with history.reading(self.folder(request), seconds) as store:
                return question(store)

        return await self.aside(request, look)

    async def tell(self, request: web.Request, question: Callable[[Reader], object]) -> web.Response:
        """The same as an answer, which may be large: encoded off the event loop as well."""
        text = await self.ask(request, lambda store: encoded(question(store)))
        return web.Response(body=text, content_type="application/json")

    def folder(self, request: web.Request) -> Path:
        return history.find(self.runs(), request.match_info["run"])

    def described(self, summary: Summary) -> dict[str, Any]:
        return {**summary.to_dict(), "controllable": summary.id in self.controls}

    async def list(self, request: web.Request) -> web.Response:
        offset = number(request, "offset", 0, 0)
        limit = number(request, "limit", PAGE, 1, LONGEST_PAGE)
        found = await self.aside(request, lambda: history.summaries(self.runs()))
        page = [self.described(s) for s in found[offset : offset + limit]]
        return web.json_response({"runs": page, "total": len(found)})

    async def details(self, request: web.Request) -> web.Response:
        summary = await self.aside(request, lambda: history.summary(self.folder(request)))
        known = {**self.described(summary), "limits": LIMITS}
        return await self.tell(
            request, lambda store: {**known, **history.details(store), "strengths": history.strengths(store)}
        )

    async def curves(self, request: web.Request) -> web.Response:
        points = number(request, "points", history.POINTS, 1, MOST_POINTS)
        first, last = number(request, "from", 0, 0), number(request, "to", LARGEST, 0)
        if last < first:
            raise Refused(400, f"to = {last} lies before from = {first}")
        names = request.query["names"].split(",") if request.query.get("names") else None

        def question(store: Reader) -> dict[str, object]:
            found = history.curves(store, names, points, first, last)
            return {"iteration": store.done(), "curves": {n: c.to_dict() for n, c in found.items()}}

        return await self.tell(request, question)

    async def index(self, request: web.Request) -> web.Response:
        return await self.tell(request, lambda store: vars(history.index(store)))

    async def groups(self, request: web.Request) -> web.Response:
        iteration = place(request, "iteration")
        return await self.tell(request, lambda store: stored(iteration, "groups", history.groups(store, iteration)))

    async def evaluation(self, request: web.Request) -> web.Response:
        iteration = place(request, "iteration")
        return await self.tell(request, lambda s: stored(iteration, "pictures", history.evaluation(s, iteration)))

    async def tile(self, request: web.Request) -> web.StreamResponse:
        iteration, slot = place(request, "iteration"), place(request, "slot")
        if request.match_info["candidate"] == "base":
            return tile(await self.ask(request, lambda store: history.base_tile(store, iteration, slot)))
        candidate = place(request, "candidate")
        return tile(await self.ask(request, lambda store: history.candidate_tile(store, iteration, slot, candidate)))

    async def evaluation_tile(self, request: web.Request) -> web.StreamResponse:
        iteration, n = place(request, "iteration"), place(request, "number")
        return tile(await self.ask(request, lambda store: history.evaluation_tile(store, iteration, n)))

    async def diagnosis(self, request: web.Request) -> web.Response:
        return await self.tell(request, lambda store: {"findings": history.findings(store)})

    async def export(self, request: web.Request) -> web.StreamResponse:
        write = {"csv": export.write_csv, "json": export.write_json}.get(request.match_info["kind"])
        if write is None:
            raise Refused(404, "there is export.csv and export.json")
        name = f"{request.match_info['run']}.{request.match_info['kind']}"
        return await attachment(request, name, lambda file: self.ask(request, lambda store: write(store, file), WHOLE))

    async def control(self, request: web.Request) -> web.Response:
        wish = await body(request, ("action", *CHANGEABLE))
        folder = await self.aside(request, lambda: self.folder(request))
        control = self.controls.get(folder.name)
        if control is None:
            raise Refused(409, f"{short(folder.name)} is {await self.aside(request, lambda: where(folder))}")
        obey(control, wish)
        return web.json_response({"action": wish["action"]}, status=202)

    async def rename(self, request: web.Request) -> web.Response:
        title = title_of(await body(request, ("title",)))

        def change() -> Summary:
            folder = self.folder(request)
            housekeeping.set_title(folder, title)
            return history.summary(folder)

        return web.json_response(self.described(await self.aside(request, change)))

    async def delete(self, request: web.Request) -> web.Response:
        await self.aside(request, lambda: housekeeping.move_to_trash(self.runs(), self.folder(request)))
        return web.Response(status=204)

    async def nothing(self, request: web.Request) -> web.Response:
        """404, or 405 if another method is taken."""
        tail = request.match_info["tail"]
        allowed = {method for method, path, _ in self.table() if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), tail)}
        if not allowed:
            return error(404, f"there is nothing at {short(PREFIX + tail)}")
        allowed |= {"HEAD"} if "GET" in allowed else set()
        methods = ", ".join(sorted(allowed))
        return error(405, f"{request.method} is not taken here, but {methods}", {hdrs.ALLOW: methods})


def stored(iteration: int, key: str, found: Sequence[object]) -> dict[str, object]:
    """
    Raises:
        Refused: 404, there is nothing.
    """
    if not found:
        raise Refused(404, f"there are no {key} of iteration {iteration}")
    return {"iteration": iteration, key: found}


def where(folder: Path) -> str:
    """Why this process cannot tell a run anything."""
    if history.is_live(folder):
        return "being trained by another process: tell it there (in its ComfyUI, or by Ctrl-C in its terminal)"
    return "not being trained: there is nobody to tell"
