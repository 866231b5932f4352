"""A function that answers in, the route of its question out."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.reply import RefusedError, refusal, reply
from introspan_collector.expose.sources import Answer, Sources


def route(
    sources: Sources, path: str, known: tuple[str, ...], answer: Callable[[Sources, Parameters], Answer]
) -> Route:
    """The route of a question below /api/v1. Its handler is a plain function: Starlette runs it off the event loop."""

    def endpoint(request: Request) -> JSONResponse:
        try:
            return reply(answer(sources, Parameters(request.query_params, known)))
        except (ParameterError, RefusedError) as error:
            return refusal(error)

    return Route(f"/api/v1/{path}", endpoint)
