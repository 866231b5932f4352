"""The dashboard of the collector itself."""

from deploy.grafana.dashboards.collector import hides, keeps, keeps_up, takes
from deploy.grafana.layout import Page
from deploy.grafana.links import COLLECTOR
from deploy.grafana.variables import datasource, instances

PAGE = Page(
    COLLECTOR,
    "Introspan: the collector itself",
    "Whether the collector takes everything, keeps up, keeps what it took, and shows all of it.",
    (datasource(), instances()),
    "",
    (takes.NUMBERS, takes.SECTION, keeps_up.SECTION, keeps.SECTION, hides.SECTION),
)
