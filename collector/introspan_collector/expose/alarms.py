"""Questions about alarms in, JSON out; what people do about them in."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from introspan_collector.expose.calls import Body, Calls
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.reply import RefusedError, refusal, reply
from introspan_collector.expose.sources import Answer, Sources

_STATES = ("open", "acknowledged", "resolved")


class _Acknowledge(Body):
    by: Annotated[str, Field(min_length=1, max_length=200)]
    comment: Annotated[str, Field(max_length=2000)] = ""
    accept_as_class: bool = False
    force: bool = False


def routes(sources: Sources, calls: Calls) -> list[Route]:
    """The routes of alarms."""
    detection = sources.detection

    def alarms(request: Request) -> JSONResponse:
        try:
            wanted = _wanted(Parameters(request.query_params, ("model", "adapter", "state")))
            return reply({"alarms": [one for one in detection.alarms() if wanted.items() <= one.items()]})
        except ParameterError as error:
            return refusal(error)

    def alarm(request: Request) -> JSONResponse:
        try:
            return reply(_found(sources, request.path_params["id"]))
        except RefusedError as error:
            return refusal(error)

    async def acknowledge(request: Request) -> JSONResponse:
        id_ = request.path_params["id"]

        def act(body: _Acknowledge) -> Answer:
            _found(sources, id_)
            return detection.acknowledge(
                id_, body.by, body.comment, accept_as_class=body.accept_as_class, force=body.force
            )

        return await calls.with_json(request, _Acknowledge, act)

    return [
        Route("/api/v1/alarms", alarms),
        Route("/api/v1/alarms/{id}", alarm),
        Route("/api/v1/alarms/{id}/acknowledge", acknowledge, methods=["POST"]),
    ]


def _found(sources: Sources, id_: str) -> Answer:
    found = sources.detection.alarm(id_)
    if found is None:
        raise RefusedError(404, "id", id_, "take the id of an alarm that is listed: GET /api/v1/alarms")
    return found


def _wanted(asked: Parameters) -> dict[str, str]:
    """What alarms must have that are asked for."""
    given = {key: text for key in ("model", "adapter", "state") if (text := asked.text(key)) is not None}
    state = given.get("state")
    if state is not None and state not in _STATES:
        raise ParameterError("state", state, f"must be one of {', '.join(_STATES)}")
    return given
