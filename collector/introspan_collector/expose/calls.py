"""Calls that change something in — who may, how large, of which form — and checked values out."""

import hmac
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from introspan_collector.expose.parameters import ParameterError
from introspan_collector.expose.reply import RefusedError, refusal, reply
from introspan_collector.expose.sources import Answer

JSON_BYTES = 64 * 1024
FILE_BYTES = 8 * 1024 * 1024

_SHOWN_CHARACTERS = 100
_FILE_TYPES = ("application/octet-stream", "application/zip")


class Body(BaseModel):
    """What a call's JSON holds; no other key is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_B = TypeVar("_B", bound=Body)


class Calls:
    """Lets in who has the token, where there is one. Each action runs off the event loop.

    While the collector is not ready, nothing is changed: what it does not save any more it must not promise.
    """

    def __init__(self, token: str | None, ready: Callable[[], bool]) -> None:
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._ready = ready

    async def with_json(self, request: Request, form: type[_B], act: Callable[[_B], Answer]) -> JSONResponse:
        """What act answers to the JSON of a request."""

        async def answer() -> Answer:
            # A page in somebody's browser can post a form to us, but not JSON: for that it would have to ask first.
            data = await _body(request, ("application/json",), JSON_BYTES)
            return await run_in_threadpool(act, _parsed(data, form))

        return await self._answered(request, answer)

    async def with_file(self, request: Request, act: Callable[[bytes], Answer]) -> JSONResponse:
        """What act answers to the file that a request carries."""

        async def answer() -> Answer:
            return await run_in_threadpool(act, await _body(request, _FILE_TYPES, FILE_BYTES))

        return await self._answered(request, answer)

    async def without_body(self, request: Request, act: Callable[[], Answer]) -> JSONResponse:
        """What act answers."""

        async def answer() -> Answer:
            return await run_in_threadpool(act)

        return await self._answered(request, answer)

    async def _answered(self, request: Request, answer: Callable[[], Awaitable[Answer]]) -> JSONResponse:
        try:
            self._let_in(request)
            return reply(await answer())
        except (ParameterError, RefusedError) as error:
            return refusal(error)
        except ValueError as error:
            # It was understood, and does not fit what there is: the text says what would.
            return refusal(RefusedError(409, request.url.path, "", str(error)))

    def _let_in(self, request: Request) -> None:
        if not self._ready():
            raise RefusedError(503, request.url.path, "", "the collector is starting or stopping: call again")
        if self._expected is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), self._expected):
            remedy = "send `Authorization: Bearer TOKEN` with the token of http_token_file: this call changes something"
            raise RefusedError(401, "authorization", "none" if not given else "another one", remedy)


async def _body(request: Request, types: tuple[str, ...], most_bytes: int) -> bytes:
    """The body, read no further than it may be long. Raises RefusedError."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in types:
        raise RefusedError(415, "content-type", given, f"must be {' or '.join(types)}")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most_bytes:
            remedy = f"must have at most {most_bytes} bytes"
            raise RefusedError(413, "body", f"over {most_bytes} bytes", remedy)
    return bytes(data)


def _parsed(data: bytes, form: type[_B]) -> _B:
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "body"
        value = repr(problem["input"])[:_SHOWN_CHARACTERS]
        if problem["type"] == "extra_forbidden":
            raise ParameterError(
                key, value, f"not a key here; known are {', '.join(form.model_fields)}"
            ) from error
        raise ParameterError(key, "" if problem["type"] == "missing" else value, problem["msg"]) from error
