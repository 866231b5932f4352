"""Where? Every signal that has layers, layers × time, against its own past and as it is."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BLUE, NOTE
from deploy.grafana.panels import Face, Panel, layers, lines
from deploy.grafana.queries import Query, of
from deploy.grafana.units import unit
from deploy.grafana.variables import ADAPTERS, MODEL, REPLICAS
from introspan_collector.expose.names import gauge_name
from introspan_collector.layout import is_aggregated, is_counted
from introspan_wire.signals import CATALOGUE, Axis, Kind, Signal

_BEYOND_DEVIATIONS = 4.0
_LEAST_DEVIATION = 1e-3
"""Below it a layer that hardly ever changes would turn rounding into colour."""

_LAYERED = tuple(
    signal for signal in CATALOGUE.values() if Axis.LAYER in signal.axes and is_aggregated(signal.name)
)


def _named(signal: Signal) -> str:
    family, _, rest = signal.name.partition(".")
    return f"{family.capitalize()}: {rest.replace('_', ' ')}"


def _mean(signal: Signal) -> str:
    return f"avg by (layer) ({of(gauge_name(signal.name), MODEL, REPLICAS, ADAPTERS)})"


def _against_past(signal: Signal) -> Panel:
    values = of(gauge_name(signal.name), MODEL, REPLICAS, ADAPTERS)
    # Up to the end of what is shown, and not of each step: Prometheus then works it out once.
    past = f"avg by (layer) (avg_over_time({values}[$past] @ end()))"
    spread = f"avg by (layer) (stddev_over_time({values}[$past] @ end()))"
    return layers(
        Face(
            _named(signal),
            f"{signal.description} Each layer in standard deviations from its own mean over the time chosen above. "
            "Bad: a band of colour that begins at one moment. From one layer upwards: damage there. All layers at "
            "once: the input, or the embedding.",
            "none",
            width=8,
        ),
        Query(f"({_mean(signal)} - {past}) / clamp_min({spread}, {_LEAST_DEVIATION:g})", "{{layer}}"),
        beyond=_BEYOND_DEVIATIONS,
    )


def _as_it_is(signal: Signal) -> Panel:
    return layers(
        Face(
            f"{_named(signal)}, values",
            f"{signal.description} Mean over requests, heads and replicas. {_bad(signal)}",
            unit(signal),
            none="nobody sends requests again" if signal.kinds == (Kind.REPREFILL,) else "nothing measured",
            width=8,
        ),
        Query(_mean(signal), "{{layer}}"),
    )


def _bad(signal: Signal) -> str:
    if is_counted(signal.name):
        return "Bad: anything but 0; no healthy model has any."
    if signal.kinds == (Kind.REPREFILL,):
        return "Bad: brighter than rounding; the cache holds what was never computed for this request."
    return "Layers differ by nature: look along a row, not across. Bad: a row that changes its shade."


def _is_exact(signal: Signal) -> bool:
    """Whether a healthy model's value is known beforehand."""
    return is_counted(signal.name) or signal.kinds == (Kind.REPREFILL,)


def _count(signal: str) -> str:
    return f"count(count by (layer) ({of(gauge_name(signal), MODEL, REPLICAS, ADAPTERS)}))"


_MEASURED = lines(
    Face(
        "Layers measured",
        "How many layers the heatmaps show. Bad: fewer than yesterday: capture switched some off (see Coverage), or "
        "replicas are set up differently.",
        "none",
        width=8,
    ),
    Query(_count("residual.log_rms"), "residual stream"),
    Query(_count("attention.entropy"), "attention"),
    colours={"residual stream": BLUE, "attention": NOTE},
).min(0)

AGAINST_PAST = Section(
    "Where? Layers × time, against each layer's own past",
    (
        *(_against_past(signal) for signal in _LAYERED if not _is_exact(signal)),
        *(_as_it_is(signal) for signal in _LAYERED if _is_exact(signal)),
        _MEASURED,
    ),
)

VALUES = Section(
    "Where? The same as values",
    tuple(_as_it_is(signal) for signal in _LAYERED if not _is_exact(signal)),
    folded=True,
)
