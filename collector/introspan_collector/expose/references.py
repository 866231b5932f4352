"""Questions about references in, JSON and files out; files and promotions in."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from introspan_collector.expose.calls import Body, Calls
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.reply import RefusedError, refusal, reply
from introspan_collector.expose.sources import Answer, Detection, Sources

_WHICH = ("live", "draft")


class _Promote(Body):
    model: Annotated[str, Field(min_length=1, max_length=1024)]
    adapter: Annotated[str, Field(max_length=1024)] = ""
    force: bool = False


def routes(sources: Sources, calls: Calls) -> list[Route]:
    """The routes of references."""
    asked = _References(sources, calls)
    return [
        Route("/api/v1/references", asked.list),
        Route("/api/v1/references/export", asked.export),
        Route("/api/v1/references/import", asked.adopt, methods=["POST"]),
        Route("/api/v1/references/promote", asked.promote, methods=["POST"]),
    ]


class _References:
    """The endpoints of references."""

    def __init__(self, sources: Sources, calls: Calls) -> None:
        self._detection = sources.detection
        self._calls = calls

    def list(self, request: Request) -> JSONResponse:
        try:
            asked = Parameters(request.query_params, ("model", "adapter"))
        except ParameterError as error:
            return refusal(error)
        found = [
            one
            for one in self._detection.references()
            if asked.text("model") in (None, one["model"]) and asked.text("adapter") in (None, one["adapter"])
        ]
        return reply({"references": found})

    def export(self, request: Request) -> Response:
        try:
            asked = Parameters(request.query_params, ("model", "adapter", "which"))
            data = _file(self._detection, asked)
        except (ParameterError, RefusedError) as error:
            return refusal(error)
        headers = {"content-disposition": 'attachment; filename="reference.zip"'}
        return Response(data, media_type="application/zip", headers=headers)

    async def adopt(self, request: Request) -> JSONResponse:
        def act(data: bytes) -> Answer:
            try:
                return {"reference": self._detection.adopt(data)}
            except ValueError as error:
                raise ParameterError("reference", f"{len(data)} bytes", str(error)) from error

        return await self._calls.with_file(request, act)

    async def promote(self, request: Request) -> JSONResponse:
        def act(body: _Promote) -> Answer:
            return {"reference": self._detection.promote(body.model, body.adapter, force=body.force)}

        return await self._calls.with_json(request, _Promote, act)


def _file(detection: Detection, asked: Parameters) -> bytes:
    model, which = asked.text("model"), asked.text("which") or _WHICH[0]
    if not model:
        raise ParameterError("model", "", "is required: one of GET /api/v1/references")
    if which not in _WHICH:
        raise ParameterError("which", which, f"must be one of {', '.join(_WHICH)}")
    try:
        return detection.export(model, asked.text("adapter") or "", draft=which == "draft")
    except ValueError as error:
        raise RefusedError(404, "model", model, str(error)) from error
