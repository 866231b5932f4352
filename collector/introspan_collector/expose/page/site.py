"""Sources in, the routes of every page and of what pages load out."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from introspan_collector.expose.page import canary, fleet, incidents, model, request
from introspan_collector.expose.page.assets import asset, assets
from introspan_collector.expose.page.html import NotFoundError, html, prepare
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.sources import Answer, Sources

_Content = Callable[[Sources, Parameters], Answer]


def routes(sources: Sources) -> list[Route]:
    """The routes of pages. Handlers are plain functions: Starlette runs them off the event loop."""
    prepare()
    assets()

    def page(path: str, template: str, known: tuple[str, ...], content: _Content) -> Route:
        def endpoint(asked: Request) -> Response:
            try:
                found = content(sources, Parameters(asked.query_params, known))
            except NotFoundError as error:
                return html(sources, "problem.html", {"title": "Not found", "problem": error}, 404)
            except ParameterError as error:
                return html(sources, "problem.html", {"title": "Cannot be shown", "problem": error}, 400)
            return html(sources, template, found)

        return Route(path, endpoint)

    return [
        page("/", "fleet.html", (), fleet.content),
        page("/model", "model.html", model.PARAMETERS, model.content),
        page("/request", "request.html", request.PARAMETERS, request.content),
        page("/incidents", "incidents.html", incidents.PARAMETERS, incidents.content),
        page("/incident", "incident.html", ("id",), incidents.one),
        page("/canary", "canary.html", ("model",), canary.content),
        Route("/static/{name}", lambda asked: asset(asked.path_params["name"], asked.headers)),
    ]
