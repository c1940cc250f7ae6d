"""The panel's routes on ComfyUI's own server, which serves them at /x and at /api/x."""

from __future__ import annotations

import inspect
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from server import PromptServer

from ..trainer.board.answers import answered
from ..trainer.board.origins import check_behind
from ..trainer.board.routes import PREFIX, Board
from . import host, service

if TYPE_CHECKING:
    from aiohttp import web

    from ..trainer.board.answers import Handler


def register() -> None:
    """Once, before ComfyUI starts to listen."""
    table = PromptServer.instance.routes
    for route in Board(host.runs_folder, service.controls).routes():
        table.route(route.method, route.path, **route.kwargs)(guarded(route.handler))


def guarded(handler: Handler) -> Handler:
    """ComfyUI refuses pages of other origins only if it is asked by a name of this machine; these routes always do."""

    @answered
    @wraps(handler)
    async def checked(request: web.Request) -> web.StreamResponse:
        check_behind(request, *host.served_to())
        return await handler(request)

    return checked


def other_copy() -> Path | None:
    """The folder of another copy of the pack whose routes are registered already."""
    for route in PromptServer.instance.routes:
        if getattr(route, "path", "").startswith(PREFIX):
            return Path(inspect.getfile(inspect.unwrap(route.handler))).parents[2]
    return None


def give_way(folder: Path) -> None:
    """Take the frontend of the copy in `folder` back."""
    served = import_module("nodes").EXTENSION_WEB_DIRS  # ComfyUI's module; this package is called the same
    for name in [name for name, web in served.items() if Path(web) == folder / "web"]:
        del served[name]
