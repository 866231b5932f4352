"""Announced deploys in, and what is announced out."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from introspan_collector.expose.calls import Body, Calls
from introspan_collector.expose.reply import RefusedError, reply
from introspan_collector.expose.sources import Answer, Sources


class _Announce(Body):
    model: Annotated[str, Field(max_length=1024)] = ""
    start: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    end: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


def routes(sources: Sources, calls: Calls) -> list[Route]:
    """The routes of announced deploys."""
    detection = sources.detection

    def windows(_: Request) -> JSONResponse:
        return reply({"windows": detection.windows()})

    async def announce(request: Request) -> JSONResponse:
        def act(body: _Announce) -> Answer:
            return {"window": detection.announce(body.model, body.start, body.end, body.reason)}

        return await calls.with_json(request, _Announce, act)

    async def withdraw(request: Request) -> JSONResponse:
        id_ = request.path_params["id"]

        def act() -> Answer:
            if all(window["id"] != id_ for window in detection.windows()):
                raise RefusedError(
                    404, "id", id_, "take the id of an announced deploy: GET /api/v1/maintenance"
                )
            detection.withdraw(id_)
            return {"withdrawn": id_}

        return await calls.without_body(request, act)

    return [
        Route("/api/v1/maintenance", windows, methods=["GET"]),
        Route("/api/v1/maintenance", announce, methods=["POST"]),
        Route("/api/v1/maintenance/{id}", withdraw, methods=["DELETE"]),
    ]
