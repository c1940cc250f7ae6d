"""Reading a request: multipart/form-data with a JSON part `request` and parts `images`."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http import HttpProcessingError

from ..errors import Refused
from .pictures import File

JSON_BYTES = 2**20  # of the part `request`
CHUNK = 2**16  # bytes that are read at once
KEYS = ("prompts", "rewards")
# what aiohttp raises for a form that is broken, or whose client goes away before its end
BROKEN = (
    *(ValueError, AssertionError, RuntimeError, LookupError),
    *(HttpProcessingError, web.RequestPayloadError, ConnectionError),
)


@dataclass
class Query:
    """What a request asks for."""

    prompts: list[str]
    rewards: list[str]
    files: list[File] = field(repr=False)


def check_head(request: web.Request, max_bytes: int) -> None:
    """Looks at the headers only.

    Raises:
        Refused: 411 without a length, 413 for too long a body, 415 for one of another type.
    """
    if request.content_type != "multipart/form-data":
        raise Refused(415, f"the body is {request.content_type!r}: must be multipart/form-data")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise Refused(415, "the body is compressed: send it as it is")
    if request.content_length is None:
        raise Refused(411, "the body has no Content-Length: send it in one piece")
    if request.content_length > max_bytes:
        raise Refused(413, f"the body has {request.content_length} bytes: at most {max_bytes}")


async def read(request: web.Request, names: Sequence[str], max_images: int, take: Callable[[int], None]) -> Query:
    """The body's parts, none of them decoded.

    Args:
        names: of the server's rewards.
        take: told of bytes before they are kept; may raise Refused.

    Raises:
        Refused: 400 for a body that is no such form, 404 for a reward that the server does not have, 413 for too much.
    """
    wanted: dict[str, Any] | None = None
    files: list[File] = []
    try:
        form = await request.multipart()
        while (part := await form.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name not in ("request", "images"):
                raise Refused(400, f"part {getattr(part, 'name', None)!r}: must be 'request' or 'images'")
            if part.name == "images":
                if len(files) == max_images:
                    raise Refused(413, f"more than {max_images} images in a request")
                kind = part.headers.get(hdrs.CONTENT_TYPE, "").lower()
                files.append(File(kind, await read_part(part, request.content_length or 0, take)))
            elif wanted is None:
                wanted = parse_json(await read_part(part, JSON_BYTES, take))
            else:
                raise Refused(400, "there are two parts 'request': must be one")
    except BROKEN as error:
        raise Refused(400, f"the body is no multipart/form-data ({' '.join(str(error).split())[:200]})") from error
    if wanted is None or not files:
        raise Refused(400, f"the part {'images' if wanted else 'request'!r} is missing")
    return Query(prompts(wanted), rewards(wanted, names), files)


async def read_part(part: BodyPartReader, most: int, take: Callable[[int], None]) -> bytes:
    """A part's bytes, which `take` is told of. Raises Refused: 413 if they are more than `most`."""
    data = io.BytesIO()
    while not part.at_eof():
        chunk = await part.read_chunk(CHUNK)
        take(len(chunk))
        if data.tell() + len(chunk) > most:
            raise Refused(413, f"the part {part.name!r} has more than {most} bytes")
        data.write(chunk)
    return data.getvalue()  # which copies nothing


def parse_json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the part 'request' is no JSON ({str(error)[:200]})") from None
    if not isinstance(value, dict):
        raise Refused(400, "the part 'request' must be a JSON object with the key 'prompts'")
    if unknown := sorted(set(value) - set(KEYS)):
        raise Refused(400, f"{unknown[0][:100]!r} is no key of 'request': known are {', '.join(KEYS)}")
    return value


def prompts(wanted: dict[str, Any]) -> list[str]:
    texts = wanted.get("prompts")
    if not _texts(texts):
        raise Refused(400, "prompts must be a list of texts")
    for i, text in enumerate(texts):
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise Refused(400, f"prompts[{i}] is no Unicode text: it has half a surrogate pair")
    return texts


def rewards(wanted: dict[str, Any], names: Sequence[str]) -> list[str]:
    """The rewards that are asked for, all if nothing is said."""
    if wanted.get("rewards") is None:
        return list(names)
    asked = wanted["rewards"]
    if not _texts(asked) or not asked:
        raise Refused(400, "rewards must be a list of names, and one at least")
    for name in asked:
        if name not in names:
            raise Refused(404, f"there is no reward {name[:100]!r}: the server has {', '.join(names)}")
    return list(dict.fromkeys(asked))


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
