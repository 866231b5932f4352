"""Columns in, a table with one row for each model out."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import common, dashboard

from deploy.grafana.look import FINE, bounds, by_bounds
from deploy.grafana.panels import Face
from deploy.grafana.queries import PROMETHEUS, Form, Query

Above = tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A value of each model. expression: one series a model; above: colours from a value on."""

    title: str
    expression: str
    unit: str = "short"
    above: Above = ()
    mappings: Sequence[dashboard.ValueMapping] = ()

    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """What Grafana is told of it."""
        found = [
            dashboard.DynamicConfigValue("unit", self.unit),
            dashboard.DynamicConfigValue("mappings", list(self.mappings)),
        ]
        if self.above:
            cell = common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)
            found += [
                dashboard.DynamicConfigValue("thresholds", bounds(*self.above).build()),
                dashboard.DynamicConfigValue("color", by_bounds().build()),
                dashboard.DynamicConfigValue("custom.cellOptions", cell),
            ]
        return found


def models(face: Face, columns: Sequence[Column], links: Sequence[build.DashboardLink]) -> table.Panel:
    """One row for each model; links lead from its name."""
    found = table.Panel().title(face.title).description(face.tells).unit(face.unit).no_value(face.none)
    found.datasource(PROMETHEUS).span(face.width).height(face.height).thresholds(bounds(below=FINE))
    found.show_header(True).filterable(False).cell_height(common.TableCellHeight.SM)
    names = {"model": "Model"}
    for letter, column in zip(ascii_uppercase, columns, strict=False):
        found.with_target(Query(column.expression, form=Form.TABLE, instant=True).target(letter))
        found.override_by_name(column.title, column.properties())
        names[f"Value #{letter}"] = column.title
    found.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    shown = {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, name in enumerate(names)},
        "renameByName": names,
    }
    found.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=shown))
    ways = [link.build() for link in links]
    return found.override_by_name("Model", [dashboard.DynamicConfigValue("links", ways)])
