"""Metrics and labels in, queries of Prometheus out."""

from dataclasses import dataclass
from enum import Enum

from grafana_foundation_sdk.builders import prometheus as build
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = dashboard.DataSourceRef("prometheus", "${datasource}")

RATE = "$__rate_interval"


class Form(Enum):
    """What a panel makes of the answer."""

    SERIES = PromQueryFormat.TIME_SERIES
    TABLE = PromQueryFormat.TABLE
    BUCKETS = PromQueryFormat.HEATMAP


@dataclass(frozen=True, slots=True)
class Query:
    """One question. legend: name of a series, with {{label}}; exemplars: also the traces of some requests."""

    expression: str
    legend: str = ""
    form: Form = Form.SERIES
    instant: bool = False
    exemplars: bool = False

    def target(self, letter: str) -> build.Dataquery:
        """The same as a panel holds it."""
        found = build.Dataquery().ref_id(letter).datasource(PROMETHEUS).expr(self.expression)
        found.format(self.form.value).legend_format(self.legend or "__auto").exemplar(self.exemplars)
        return found.instant() if self.instant else found.range()


def of(metric: str, *matchers: str) -> str:
    """A selector."""
    return f"{metric}{{{','.join(matchers)}}}"


def rate(metric: str, *matchers: str) -> str:
    """How fast a counter grows, per second."""
    return f"rate({of(metric, *matchers)}[{RATE}])"


def total(by: str, expression: str) -> str:
    """The sum over all labels but these."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def most(by: str, expression: str) -> str:
    """The largest over all labels but these."""
    return f"max by ({by}) ({expression})" if by else f"max({expression})"
