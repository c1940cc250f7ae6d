"""TEST-ONLY pack: tells which Python modules ComfyUI's process has imported."""

import sys

from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/probe/modules")
async def modules(_request: web.Request) -> web.Response:
    return web.json_response(sorted(sys.modules))
