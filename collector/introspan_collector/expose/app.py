"""Sources in, the HTTP application out: /metrics, health, the JSON API and the page."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from introspan_collector.expose import (
    alarms,
    api,
    canaries,
    drift,
    heads,
    heatmap,
    maintenance,
    references,
    requests,
)
from introspan_collector.expose.calls import Calls
from introspan_collector.expose.metrics import render
from introspan_collector.expose.page import site
from introspan_collector.expose.reply import RefusedError, refusal
from introspan_collector.expose.sources import Sources


def build(sources: Sources) -> Starlette:
    """The application. Handlers that take long, and all that change something, run off the event loop."""
    calls = Calls(sources.http_token, sources.ready)

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
            *alarms.routes(sources, calls),
            *maintenance.routes(sources, calls),
            *references.routes(sources, calls),
            *canaries.routes(sources, calls),
            *heatmap.routes(sources),
            *heads.routes(sources),
            *drift.routes(sources),
            *requests.routes(sources),
            *site.routes(sources),
        ],
        exception_handlers={404: _no_such_call, 405: _no_such_call},
    )


def _no_such_call(request: Request, error: Exception) -> Response:
    """As every other mistake: JSON where JSON is served."""
    assert isinstance(error, HTTPException), "Starlette has no other for these statuses"
    path = request.url.path
    if not path.startswith("/api/"):
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    if error.status_code == 404:
        return refusal(RefusedError(404, "path", path, "is no call of the API: see docs/api.md"))
    allowed = (error.headers or {}).get("Allow", "")
    return refusal(RefusedError(405, "method", request.method, f"must be one of {allowed}"))
