"""What is done to the system and what the collector makes of it in, the upper half of the screen out."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.collector_settings import SMALL
from demo.phases import Phase
from demo.watched import Exemplar, Incident, Watched

_STYLES = {Phase.LEARNING: "cyan", Phase.HEALTHY: "green", Phase.FAULT: "red", Phase.OVER: "yellow"}
_DETECTORS = {
    "sampler": "drawn tokens against their distribution",
    "canary": "known questions against earlier answers",
    "bank": "each signal inside its class",
    "extremes": "the oddest signal of each request",
    "drift": "direction of the residual stream",
    "classes": "mixture of requests, and what fits none",
    "all": "all of them: the threshold is for these",
}
_BAR_CELLS = 30
_EMPTY_LOG10 = -6.0
"""Evidence at which a bar is empty: a millionth of the threshold."""
_SENTENCES = 3
_EXEMPLARS = 3


@dataclass(frozen=True, slots=True)
class Act:
    """What is going on: the phase, since when, what is done to the system, and what became of it so far."""

    phase: Phase
    seconds: float
    says: str
    doing: str
    note: str
    outcome: str


def act_panel(act: Act, seen: Watched) -> RenderableType:
    """The phase, and what is being done to the system."""
    lines = [Text(_doing(act), "bold")]
    if act.phase is Phase.LEARNING:
        lines += [
            _bar("reference", seen.clusters, seen.clusters_needed, "clusters", done=seen.reference != "none"),
            _bar("canary", seen.canary_rounds, seen.canary_rounds_needed, "rounds", done=seen.has_canary),
            Text(SMALL, "dim"),
        ]
    lines += [Text(line, "dim") for line in (act.note, act.outcome) if line]
    style = _STYLES[act.phase]
    return Panel(
        Group(*lines), title=f"{act.phase}, {act.seconds:.0f} s", title_align="left", border_style=style
    )


def _doing(act: Act) -> str:
    if act.doing:
        return act.doing
    return {
        Phase.LEARNING: "healthy traffic and canaries; nothing is judged yet",
        Phase.HEALTHY: "healthy traffic goes on, and is judged; silence is what is expected",
        Phase.FAULT: act.says,
        Phase.OVER: "the system is as it was; an incident ends when nothing has moved for 20 s and 50 requests",
    }[act.phase]


def _bar(name: str, have: int, need: int, unit: str, *, done: bool) -> Text:
    if done:
        return Text.assemble(f"{name:<10}", ("█" * _BAR_CELLS, "green"), " learnt")
    share = min(1.0, have / need) if need else 0.0
    filled = round(share * _BAR_CELLS)
    return Text.assemble(
        f"{name:<10}",
        ("█" * filled, "cyan"),
        ("░" * (_BAR_CELLS - filled), "dim"),
        f" {have} of {need} {unit}",
    )


def evidence_table(seen: Watched, *, is_wide: bool) -> RenderableType:
    """Each detector's evidence against the threshold, with what it compares where there is room."""
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        title_justify="left",
        title="evidence, as a share of what a ticket takes, and what a page takes",
    )
    for column in ("detector", "", "ticket", "page", "compares" if is_wide else ""):
        table.add_column(column, no_wrap=True)
    for detector, compares in _DETECTORS.items():
        if detector in seen.levels:
            table.add_row(detector, *_levels(seen.levels[detector]), Text(compares if is_wide else "", "dim"))
    state = {"none": "none yet"}.get(seen.reference, seen.reference)
    canary = seen.canary or ("is being asked" if seen.has_canary else "no baseline yet")
    words = f"reference: {state}   canary: {canary}"
    if seen.differences:
        words += "\nnot compared with the reference, because what is served differs: " + "; ".join(
            seen.differences
        )
    return Group(table, Text(words)) if table.row_count else Text(words)


def _levels(levels: Mapping[str, float | None]) -> tuple[Text, Text, Text]:
    ticket, page = levels.get("ticket"), levels.get("page")
    share = 0.0 if ticket is None else min(1.0, max(0.0, 1 - ticket / _EMPTY_LOG10))
    filled = round(share * _BAR_CELLS)
    style = "red" if share >= 1 else "yellow" if share > 0.7 else "green"
    bar = Text.assemble(("█" * filled, style), ("░" * (_BAR_CELLS - filled), "dim"), "▏")
    return bar, Text(_share(ticket)), Text(_share(page))


def _share(log10: float | None) -> str:
    return "–" if log10 is None else f"{10**log10:.1e}" if log10 < -1 else f"{10**log10:.2f}"


def incident_panel(incident: Incident) -> RenderableType:
    """One incident, as people are told of it."""
    lines = [Text.assemble("triage: ", (incident.verdict, "bold"), f"   {incident.severity}")]
    lines += [Text(f"  {reason}") for reason in incident.reasons]
    if incident.layer:
        lines.append(Text.assemble("where: ", (incident.layer, "bold")))
    lines += [Text(f"evidence: {sentence}") for sentence in incident.sentences[:_SENTENCES]]
    more = len(incident.sentences) - _SENTENCES
    if more > 0:
        lines.append(Text(f"and {more} more like these", "dim"))
    if incident.exemplars:
        lines.append(Text("requests to look at, with their traces:", "dim"))
    lines += [_request(one) for one in incident.exemplars[:_EXEMPLARS]]
    lines.append(Text(incident.guarantee, "dim"))
    if incident.resolution:
        lines.append(Text(f"over: {incident.resolution}", "green"))
    style = "red" if incident.is_open else "green"
    state = "open" if incident.is_open else "resolved"
    return Panel(
        Group(*lines), title=f"{incident.alertname}, {state}", title_align="left", border_style=style
    )


def _request(one: Exemplar) -> Text:
    # So short that it fits into a line.
    feature = one.feature.replace(" of its ", ", ").replace(" at layer ", " layer ")
    return Text(f"{one.request_id}  {one.trace_id or '–'}  {feature}", "dim")
