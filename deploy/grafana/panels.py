"""Questions of Prometheus and what they tell in, panels that all look alike out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, heatmap, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.text import TextMode

from deploy.grafana.look import BAD, DIVERGING, SEQUENTIAL, bounds, by_bounds, fixed, shades
from deploy.grafana.queries import PROMETHEUS, Query

Panel = Builder[dashboard.Panel]
Colours = Mapping[str, str]

_P = TypeVar(
    "_P", bargauge.Panel, heatmap.Panel, stat.Panel, statetimeline.Panel, text.Panel, timeseries.Panel
)

_EVERYTHING = -1e9
"""A heatmap hides cells up to 1e-9 unless it is told of a lower bound, and many signals are negative."""


@dataclass(frozen=True, slots=True)
class Face:
    """What a panel says of itself. tells: what it shows and what a bad picture looks like; none: instead of no data."""

    title: str
    tells: str
    unit: str
    none: str = "nothing measured"
    width: int = 12
    height: int = 8


def number(
    face: Face,
    query: Query,
    above: build.ThresholdsConfig,
    mappings: Sequence[dashboard.ValueMapping] = (),
    links: Sequence[build.DashboardLink] = (),
) -> stat.Panel:
    """The newest value, large, on the colour of the bound it is beyond."""
    found = _with_face(stat.Panel(), face, (query,))
    found.thresholds(above).color_scheme(by_bounds()).mappings(list(mappings)).data_links(list(links))
    found.color_mode(common.BigValueColorMode.BACKGROUND).graph_mode(common.BigValueGraphMode.NONE)
    found.text_mode(common.BigValueTextMode.VALUE).justify_mode(common.BigValueJustifyMode.CENTER)
    return found.reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))


def lines(
    face: Face,
    *queries: Query,
    colours: Colours | None = None,
    above: build.ThresholdsConfig | None = None,
    links: Sequence[build.DashboardLink] = (),
) -> timeseries.Panel:
    """Series over time. colours: of those known by name; above: bounds, drawn as lines where they are given."""
    found = _with_face(timeseries.Panel(), face, queries)
    found.color_scheme(shades()).data_links(list(links)).line_width(2).fill_opacity(0)
    found.show_points(common.VisibilityMode.NEVER).line_interpolation(common.LineInterpolation.LINEAR)
    found.tooltip(
        parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    legend = parts.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    found.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([]))
    if above is not None:
        style = parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        found.thresholds(above).thresholds_style(style)
    for name, colour in (colours or {}).items():
        found.override_by_name(name, [dashboard.DynamicConfigValue("color", fixed(colour).build())])
    return found


def stepped(face: Face, *queries: Query, links: Sequence[build.DashboardLink] = ()) -> timeseries.Panel:
    """Counts that stay until they grow: every step is an event."""
    found = lines(face, *queries, links=links).min(0).decimals(0)
    return found.line_interpolation(common.LineInterpolation.STEP_AFTER)


def bars(face: Face, *queries: Query, colour: str = BAD, colours: Colours | None = None) -> timeseries.Panel:
    """Events for each moment, on top of one another."""
    found = lines(face, *queries, colours=colours).color_scheme(shades(colour)).min(0)
    found.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80).line_width(0)
    return found.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL))


def states(
    face: Face,
    *queries: Query,
    mappings: Sequence[dashboard.ValueMapping] = (),
    above: build.ThresholdsConfig | None = None,
    links: Sequence[build.DashboardLink] = (),
) -> statetimeline.Panel:
    """One bar for each series, in the colours and words of its states."""
    found = _with_face(statetimeline.Panel(), face, queries)
    found.mappings(list(mappings)).thresholds(above or bounds()).color_scheme(by_bounds())
    found.data_links(list(links)).show_value(
        common.VisibilityMode.NEVER if above else common.VisibilityMode.AUTO
    )
    found.merge_values(True).row_height(0.85).line_width(0).fill_opacity(85)
    legend = parts.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    return found.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([]))


def progress(face: Face, *queries: Query, above: build.ThresholdsConfig) -> bargauge.Panel:
    """Shares of what is needed, as bars."""
    found = _with_face(bargauge.Panel(), face, queries)
    found.min(0).max(1).thresholds(above).color_scheme(by_bounds())
    found.display_mode(common.BarGaugeDisplayMode.BASIC).orientation(common.VizOrientation.HORIZONTAL)
    return found.reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))


def layers(face: Face, query: Query, *, beyond: float | None = None) -> heatmap.Panel:
    """Layers × time. Series have to be named by the number of their layer: numbers are put in order.

    beyond: colours end there on both sides of 0; where it is not given they go from the smallest value to the largest.
    """
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).steps(64).exponent(0.5)
    if beyond is None:
        colours.scheme(SEQUENTIAL)
    else:
        colours.scheme(DIVERGING).min(-beyond).max(beyond)
    found = _heat(face, query, colours, "layer")
    return found.filter_values(heatmap.FilterValueRange().le(_EVERYTHING))


def buckets(face: Face, query: Query) -> heatmap.Panel:
    """Values × time from a histogram, with requests that can be followed to their traces as points."""
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).steps(64).exponent(0.5)
    found = _heat(face, query, colours.scheme(SEQUENTIAL), "")
    found.filter_values(heatmap.FilterValueRange().le(1e-9)).exemplars_color(BAD)
    return found.cell_values(heatmap.CellValues().unit("short").decimals(1))


def note(face: Face, markdown: str) -> text.Panel:
    """Words and links."""
    return _with_face(text.Panel(), face, ()).mode(TextMode.MARKDOWN).content(markdown)


def _heat(face: Face, query: Query, colours: heatmap.HeatmapColorOptions, axis: str) -> heatmap.Panel:
    found = _with_face(heatmap.Panel(), face, (query,))
    found.calculate(False).color(colours).cell_gap(0).show_legend().show_y_histogram()
    found.mode(common.TooltipDisplayMode.SINGLE).show_color_scale(True)
    return found.y_axis(heatmap.YAxisConfig().axis_placement(common.AxisPlacement.LEFT).axis_label(axis))


def _with_face(panel: _P, face: Face, queries: Sequence[Query]) -> _P:
    panel.title(face.title).description(face.tells).unit(face.unit).no_value(face.none)
    panel.datasource(PROMETHEUS).span(face.width).height(face.height)
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query.target(letter))
    return panel
