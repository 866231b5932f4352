"""Questions with the panels that answer them in, a dashboard out."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.annotations import marks
from deploy.grafana.links import TAG, menu
from deploy.grafana.panels import Panel
from deploy.grafana.variables import Variable

_PANEL_IDS = 1_000_000_000
_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Section:
    """One row: a question, and what answers it. folded: shown once somebody opens it."""

    question: str
    panels: Sequence[Panel]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard. marked: matcher of the models whose alarms and deploys are marked on it."""

    uid: str
    title: str
    tells: str
    variables: Sequence[Variable]
    marked: str
    sections: Sequence[Section]

    def dashboard(self) -> dashboard.Dashboard:
        """The same as Grafana reads it."""
        made = build.Dashboard(self.title).uid(self.uid).description(self.tells).tags([TAG]).readonly()
        made.time("now-6h", "now").refresh("30s").timezone("browser").link(menu())
        made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        made.variables(list(self.variables)).annotations(list(marks(self.marked)))
        for variable in self.variables:
            # Of variables that are intervals alone: others have no such fields.
            built = variable.build()
            built.auto = built.auto_min = built.auto_count = None
        y = 0
        for section in self.sections:
            y = self._add(made, section, y)
        return made.build()

    def _add(self, made: build.Dashboard, section: Section, y: int) -> int:
        row = build.Row(section.question).id(self._id(section.question)).collapsed(section.folded)
        row.grid_pos(dashboard.GridPos(h=1, w=_WIDTH, x=0, y=y))
        built = [panel.build() for panel in section.panels]
        for one in built:
            one.id_val = self._id(one.title or "")
        end = _place(built, y + 1)
        if section.folded:
            for panel in section.panels:
                row.with_panel(panel)
            # As Grafana keeps it: what follows stands below the row's title until somebody opens it.
            end = y + 1
        made.with_row(row)
        if not section.folded:
            for panel in section.panels:
                made.with_panel(panel)
        return end

    def _id(self, title: str) -> int:
        # Of the title and not of the place: an address of a panel outlives panels that are put before it.
        return zlib.crc32(f"{self.uid}/{title}".encode()) % _PANEL_IDS


def _place(panels: Sequence[dashboard.Panel], y: int) -> int:
    """Puts panels side by side in lines that begin at y; where the next one would begin."""
    x = height = 0
    for panel in panels:
        at = panel.grid_pos
        assert at is not None
        if x + at.w > _WIDTH:
            x, y, height = 0, y + height, 0
        at.x, at.y = x, y
        x, height = x + at.w, max(height, at.h)
    return y + height
