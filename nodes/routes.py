"""The panel's routes on ComfyUI's own server, which serves them at /x and at /api/x."""

from server import PromptServer

from ..trainer.board.routes import Board
from . import host, service


def register() -> None:
    """Once, before ComfyUI starts to listen."""
    table = PromptServer.instance.routes
    for route in Board(host.runs_folder, service.controls).routes():
        table.route(route.method, route.path, **route.kwargs)(route.handler)
