"""The dashboard of one model."""

from deploy.grafana.dashboards.internals import comes_out, coverage, moved, still, where
from deploy.grafana.layout import Page
from deploy.grafana.links import INTERNALS
from deploy.grafana.variables import MODEL, adapters, datasource, model, past, replicas

PAGE = Page(
    INTERNALS,
    "Introspan: model internals",
    "What one model is like inside: what moved, in which layers, since when, and whether enough is measured to tell.",
    (datasource(), model(), replicas(MODEL), adapters(MODEL), past()),
    MODEL,
    (
        still.SECTION,
        moved.SECTION,
        where.AGAINST_PAST,
        where.VALUES,
        comes_out.SECTION,
        coverage.SECTION,
    ),
)
