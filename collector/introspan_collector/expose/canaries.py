"""Questions about canaries and evidence in, JSON out; a new baseline in."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from introspan_collector.expose.calls import Body, Calls
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.reply import refusal, reply
from introspan_collector.expose.sources import Answer, Sources


class _Promote(Body):
    model: Annotated[str, Field(min_length=1, max_length=1024)]


def routes(sources: Sources, calls: Calls) -> list[Route]:
    """The routes of canaries, and of how much evidence there is."""

    def canaries(request: Request) -> JSONResponse:
        try:
            asked = Parameters(request.query_params, ("model",))
        except ParameterError as error:
            return refusal(error)
        found = sources.detection.canaries()
        wanted = [one for one in found if asked.text("model") in (None, one["model"])]
        return reply({"canaries": wanted, "endpoints": sources.endpoints()})

    async def promote(request: Request) -> JSONResponse:
        def act(body: _Promote) -> Answer:
            return {"canary": sources.detection.promote_canary(body.model)}

        return await calls.with_json(request, _Promote, act)

    def detection(request: Request) -> JSONResponse:
        try:
            Parameters(request.query_params, ())
        except ParameterError as error:
            return refusal(error)
        return reply(sources.detection.detection())

    return [
        Route("/api/v1/canaries", canaries),
        Route("/api/v1/canaries/promote", promote, methods=["POST"]),
        Route("/api/v1/detection", detection),
    ]
