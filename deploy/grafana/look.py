"""States and bounds in, colours and words that everybody can tell apart out.

Colours are those of Okabe and Ito, made for the colour-blind; what is bad is also said in words, never by colour alone.
"""

from collections.abc import Mapping

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common, dashboard

FINE = "#0072B2"
NOTE = "#E69F00"
BAD = "#D55E00"
UNKNOWN = "#8A8A8A"

BLUE, SKY, GREEN, YELLOW, PURPLE = FINE, "#56B4E9", "#009E73", "#F0E442", "#CC79A7"
SERIES = (BLUE, NOTE, GREEN, PURPLE, SKY, BAD, YELLOW)
"""For series that are known by name, in this order."""

DASHED = dashboard.DynamicConfigValue("custom.lineStyle", common.LineStyle(fill="dash", dash=[8, 8]))
"""For a series that is the bound of another."""

DIVERGING = "PuOr"
"""Palette of a heatmap whose values lie on both sides of 0: purple below, orange above."""

SEQUENTIAL = "Cividis"
"""Palette of a heatmap of amounts."""


def bounds(*above: tuple[float, str], below: str = FINE) -> build.ThresholdsConfig:
    """Colours from a value on; below is that of everything under the first."""
    steps = [
        dashboard.Threshold(None, below),
        *(dashboard.Threshold(value, colour) for value, colour in above),
    ]
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def words(of: Mapping[int, tuple[str, str]]) -> list[dashboard.ValueMapping]:
    """What stands in place of a value: its word and colour. Values that are no numbers are said to be unknown."""
    results = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(of.items())
    }
    unknown = dashboard.ValueMappingResult(text="unknown", color=UNKNOWN, index=len(results))
    special = build.DashboardSpecialValueMapOptions()
    special.match(dashboard.SpecialValueMatch.NULL_AND_NAN).result(unknown)
    return [dashboard.ValueMap(options=results), dashboard.SpecialValueMap(options=special.build())]


def fixed(colour: str) -> build.FieldColor:
    """One colour."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(colour)


def shades(colour: str = BLUE) -> build.FieldColor:
    """Shades of one colour, for as many series as there happen to be."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.SHADES).fixed_color(colour)


def by_bounds() -> build.FieldColor:
    """The colour of the bound that the value is beyond."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)
