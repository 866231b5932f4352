"""Sources in, the HTTP application out: /metrics, health, and the JSON API."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from introspan_collector.expose import api
from introspan_collector.expose.metrics import render
from introspan_collector.expose.sources import Aggregates, Rollups, Sources
from introspan_collector.model import Stats


def build(
    *,
    aggregates: Aggregates,
    archive: Rollups,
    stats: Callable[[], Stats],
    ready: Callable[[], bool],
) -> Starlette:
    """The application. Handlers only read; those that take long run off the event loop."""
    sources = Sources(aggregates, archive, stats, ready)

    def metrics(request: Request) -> Response:
        body, content_type = render(sources, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if sources.ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready: not accepting observations\n", 503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *api.routes(sources),
        ]
    )
