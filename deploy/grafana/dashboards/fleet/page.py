"""The dashboard that is opened first."""

from deploy.grafana.dashboards.fleet import complete, models, since, wrong
from deploy.grafana.layout import Page
from deploy.grafana.links import FLEET
from deploy.grafana.variables import MODELS, datasource
from deploy.grafana.variables import models as chosen

PAGE = Page(
    FLEET,
    "Introspan: fleet",
    "Every model that is watched: alarms, evidence, canaries, and whether everything is measured.",
    (datasource(), chosen()),
    MODELS,
    (wrong.SECTION, models.SECTION, since.SECTION, complete.SECTION),
)
