"""A snapshot of the collector and the state of the run in, a terminal screen out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.collected import Snapshot
from demo.traffic import Tally
from demo.watch_view import Act, act_panel, evidence_table, incident_panel
from demo.watched import Incident, Watched

_LAYER_SIGNALS = {
    "residual.log_rms": "log rms",
    "residual.log_peak": "log peak",
    "residual.turn": "turn",
    "residual.update_ratio": "update",
    "residual.velocity": "velocity",
    "residual.curvature": "curvature",
    "attention.entropy": "entropy",
    "attention.sink_mass": "sink",
    "attention.recent_mass": "recent",
}
_MODEL_SIGNALS = {
    "output.entropy": "entropy",
    "output.margin": "margin",
    "output.logprob": "log-probability",
    "output.repetition": "repetition",
    "output.nonfinite": "non-finite",
    "sampler.pit": "sampler PIT",
    "sampler.greedy_mismatch": "greedy mismatch",
}
COLUMNS = 108
"""Width from which on every value has its bar."""

_BAR_CELLS = 4
_EIGHTHS = " ▏▎▍▌▋▊▉█"
# From cold to warm, readable on dark and light backgrounds.
_HEAT = ("#4575b4", "#5e93c3", "#74add1", "#8fb8b0", "#c9a84c", "#f09a4a", "#ef7347", "#d73027")


@dataclass(frozen=True, slots=True)
class Run:
    """How far the demonstration is. total_seconds is None where only Ctrl-C ends it."""

    model: str
    elapsed_seconds: float
    total_seconds: float | None
    tally: Tally
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is done to the system, what the collector makes of it, and the incident to be shown, if there is one."""

    act: Act
    seen: Watched
    incident: Incident | None


def screen(run: Run, snapshot: Snapshot, scene: Scene, columns: int) -> RenderableType:
    """Everything there is to see now; with bars where there are columns enough for them."""
    return Group(*_sections(run, snapshot, scene, columns))


def fitting(run: Run, snapshot: Snapshot, scene: Scene, console: Console) -> RenderableType:
    """The same for a live terminal: what does not fit below what matters more is left out."""
    left = console.height - 1
    shown: list[int] = []
    # In this order they may stay; they are shown in that of the screen.
    sections = _sections(run, snapshot, scene, console.width)
    for place in sorted(range(len(sections)), key=_WHAT_STAYS.__getitem__):
        lines = len(console.render_lines(sections[place], pad=False))
        if lines <= left or not shown:
            shown.append(place)
            left -= lines
    return Group(*(sections[place] for place in sorted(shown)))


_WHAT_STAYS = (0, 1, 3, 2, 4, 5, 6, 7)
"""How much each section matters, 0 the most: the incident more than the evidence for it."""


def _sections(run: Run, snapshot: Snapshot, scene: Scene, columns: int) -> Sequence[RenderableType]:
    return (
        _header(run),
        act_panel(scene.act, scene.seen),
        evidence_table(scene.seen, is_wide=columns >= COLUMNS),
        Group() if scene.incident is None else incident_panel(scene.incident),
        _layers(snapshot, _BAR_CELLS if columns >= COLUMNS else 0),
        _model(snapshot),
        _health(snapshot),
        _addresses(run),
    )


def plain_line(run: Run, snapshot: Snapshot) -> str:
    """What is measured in one line, for output that is not a terminal."""
    means = (f"{name}={value:.3f}" for name in _MODEL_SIGNALS if (value := snapshot.mean(name)) is not None)
    return (
        f"[{run.elapsed_seconds:5.0f} s] {run.tally.answered} requests, {run.tally.output_tokens} tokens, "
        f"{sum(snapshot.segments.values())} segments, {len(snapshot.layers)} layers; {' '.join(means)}"
    )


def _header(run: Run) -> RenderableType:
    tally = run.tally
    rate = tally.output_tokens / run.elapsed_seconds if run.elapsed_seconds > 0 else 0.0
    text = Text.assemble(
        (run.model, "bold"),
        f"   {timedelta(seconds=int(run.elapsed_seconds))}   {tally.answered} requests answered, "
        f"{tally.in_flight} in flight, {tally.failed} failed   "
        f"{tally.output_tokens} tokens, {rate:.0f}/s",
    )
    if run.total_seconds is None:
        return text
    # Padding ends the bar's line, which the bar itself does not.
    return Group(text, Padding(ProgressBar(total=run.total_seconds, completed=run.elapsed_seconds)))


def _layers(snapshot: Snapshot, bar_cells: int) -> RenderableType:
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=f"mean of the last {snapshot.window_seconds:.0f} s in each layer that is measured",
        title_justify="left",
    )
    table.add_column("\nlayer" if bar_cells else "layer", justify="right", no_wrap=True)
    for name, title in _LAYER_SIGNALS.items():
        group = f"{name.split('.')[0]}\n" if bar_cells else ""
        table.add_column(f"{group}{title}", no_wrap=True)
    ranges = {name: _span(snapshot, name) for name in _LAYER_SIGNALS}
    for layer in snapshot.layers:
        cells = (_cell(snapshot.mean(name, layer), ranges[name], bar_cells) for name in _LAYER_SIGNALS)
        table.add_row(str(layer), *cells)
    return table


def _span(snapshot: Snapshot, signal: str) -> tuple[float, float]:
    values = [value for layer in snapshot.layers if (value := snapshot.mean(signal, layer)) is not None]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _cell(value: float | None, span: tuple[float, float], bar_cells: int) -> Text:
    if value is None:
        return Text("    ·", style="dim")
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.0
    style = _HEAT[min(int(share * len(_HEAT)), len(_HEAT) - 1)]
    if not bar_cells:
        return Text(f"{value:5.2f}", style)
    eighths = round(share * bar_cells * 8)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return Text.assemble(f"{value:5.2f} ", (f"{bar:<{bar_cells}}", style))


def _model(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), title="output and sampler", title_justify="left")
    shown = [(name, value) for name in _MODEL_SIGNALS if (value := snapshot.mean(name)) is not None]
    for name, _ in shown:
        table.add_column(_MODEL_SIGNALS[name])
    table.add_row(*(f"{value:.3f}" for _, value in shown))
    return table


def _health(snapshot: Snapshot) -> RenderableType:
    segments = ", ".join(f"{count} {kind}" for kind, count in sorted(snapshot.segments.items())) or "none"
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(snapshot.drops.items())) or "none"
    disabled = "; ".join(snapshot.disabled) or "none"
    cost = snapshot.capture_milliseconds_per_step
    per_step = (
        ""
        if cost is None
        else f"   capture takes {cost:.2f} ms of the model's thread in a step that is measured"
    )
    return Text(
        f"segments accepted: {segments}   dropped: {drops}   signals switched off: {disabled}\n"
        f"rows measured: {snapshot.measured_rows}{per_step}"
    )


def _addresses(run: Run) -> RenderableType:
    width = max(map(len, run.addresses))
    lines = (f"{name:<{width}}  {address}" for name, address in run.addresses.items())
    return Panel("\n".join(lines), title="look for yourself", title_align="left")
