"""Answers that are files: pictures of a run, and exports, which are written whole before they are sent."""

import asyncio
import io
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from aiohttp import hdrs, web

from ..errors import Refused
from .answers import CLOSED

FRESH = 60  # seconds in which a browser need not ask again: a run of the same name may take another's place
CHUNK = 256 * 1024  # bytes
TYPES = {".csv": "text/csv; charset=utf-8", ".json": "application/json"}


def tile(path: Path | None) -> web.FileResponse:
    """A picture, with an ETag; 304 if the client has it already.

    Raises:
        Refused: 404, there is none.
    """
    if path is None:
        raise Refused(404, "there is no such picture")
    headers = {
        hdrs.CONTENT_TYPE: "image/webp",
        hdrs.CACHE_CONTROL: f"private, max-age={FRESH}",
    }
    return web.FileResponse(path, headers=headers)


async def attachment(request: web.Request, name: str, write: Callable[[TextIO], Awaitable[None]]) -> web.StreamResponse:
    """A file to keep. It is written first, so that no slow client keeps the store open."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        await write(text)
        text.detach()
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: TYPES[Path(name).suffix],
                hdrs.CONTENT_DISPOSITION: f"attachment; filename*=UTF-8''{quote(name, safe='')}",
                hdrs.CACHE_CONTROL: "no-store",
                **CLOSED,
            }
        )
        response.content_length = file.tell()
        file.seek(0)
        await response.prepare(request)
        while request.method != hdrs.METH_HEAD and (chunk := await loop.run_in_executor(None, file.read, CHUNK)):
            await response.write(chunk)
        return response
