"""A template's name and content in, a response out that runs no script but ours."""

import time

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from introspan_collector.expose.page import words
from introspan_collector.expose.page.evidence import THRESHOLD_SHARE
from introspan_collector.expose.sources import Answer, Sources

REFRESH_SECONDS = 5

_VIEWS = {"incident.html": "incidents"}

# Names of models and requests come from the network. Nothing inline runs, and nothing is loaded from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_ENVIRONMENT = Environment(
    loader=PackageLoader("introspan_collector.expose.page"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(words.FILTERS)
_ENVIRONMENT.globals.update(words.GLOBALS, THRESHOLD_SHARE=THRESHOLD_SHARE)


def prepare() -> None:
    """Reads every template: an upgrade that exchanges the files must not mix with the program that runs."""
    for name in _ENVIRONMENT.list_templates():
        _ENVIRONMENT.get_template(name)


class NotFoundError(Exception):
    """What a page is asked to show is not there: what was asked for, and what to do."""

    def __init__(self, key: str, value: str, remedy: str) -> None:
        super().__init__(f"{key} = {value!r}: {remedy}")
        self.key = key
        self.value = value
        self.remedy = remedy


def html(sources: Sources, template: str, content: Answer, status: int = 200) -> Response:
    """The page, with what every page shows: how many incidents are open."""
    active = sources.detection.active()
    everywhere = {
        "now": time.time(),
        "view": _VIEWS.get(template, template.removesuffix(".html")),
        "refresh_seconds": REFRESH_SECONDS,
        "active": len(active),
        "critical": sum(one["severity"] == "critical" for one in active),
        "ready": sources.ready(),
        "trace_url": sources.trace_url,
    }
    body = _ENVIRONMENT.get_template(template).render(everywhere | content)
    return Response(body, status, _HEADERS, "text/html")
