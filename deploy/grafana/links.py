"""Dashboards in, ways from one to the next out, with time, datasource and what was chosen kept."""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

FLEET, INTERNALS, REQUESTS, COLLECTOR = (
    f"introspan-{name}" for name in ("fleet", "internals", "requests", "collector")
)
"""Their uids: addresses that alerts and bookmarks hold, and never change."""

TAG = "introspan"

_KEPT = "${datasource:queryparam}&${__url_time_range}"
_SAME = "&${model:queryparam}&${replica:queryparam}&${adapter:queryparam}"


def menu() -> build.DashboardLink:
    """The other dashboards, above each of them."""
    found = build.DashboardLink("Introspan").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
    return found.as_dropdown(False).include_vars(True).keep_time(True).icon("external link")


def of_series(uid: str, title: str, *labels: str) -> build.DashboardLink:
    """To a dashboard about what a series is labelled with."""
    chosen = "".join(f"&var-{label}=${{__field.labels.{label}}}" for label in labels)
    return build.DashboardLink(title).url(f"/d/{uid}?{_KEPT}{chosen}")


def of_row(uid: str, title: str) -> build.DashboardLink:
    """To a dashboard about the model in a table's row."""
    return build.DashboardLink(title).url(f"/d/{uid}?{_KEPT}&var-model=${{__data.fields.Model}}")


def same(uid: str, title: str) -> build.DashboardLink:
    """To a dashboard about what is shown here."""
    return build.DashboardLink(title).url(f"/d/{uid}?{_KEPT}{_SAME}")
