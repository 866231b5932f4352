"""The dashboard of requests and incidents."""

from deploy.grafana.dashboards.requests import incidents, stand_out, trace
from deploy.grafana.layout import Page
from deploy.grafana.links import REQUESTS
from deploy.grafana.variables import (
    MODELS,
    adapters,
    datasource,
    models,
    replicas,
    trace_id,
    traces,
)

PAGE = Page(
    REQUESTS,
    "Introspan: requests and incidents",
    "Which incidents there are, which requests stand out, and how to get from them to their traces.",
    (datasource(), traces(), models(), replicas(MODELS), adapters(MODELS), trace_id()),
    MODELS,
    (
        incidents.INCIDENTS,
        trace.SECTION,
        stand_out.QUANTILES,
        stand_out.EVENTS,
        stand_out.DISTRIBUTIONS,
        incidents.TOLD,
    ),
)
