"""Which requests stand out? Distributions over requests, with traces as points; and events that point at some."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BLUE, GREEN, NOTE
from deploy.grafana.panels import Face, Panel, bars, buckets, lines
from deploy.grafana.queries import Form, Query, rate, total
from deploy.grafana.units import unit
from deploy.grafana.variables import ADAPTERS, MODELS, REPLICAS
from introspan_collector.expose.names import event_name, histogram_name
from introspan_collector.layout import is_aggregated, is_counted
from introspan_wire.signals import CATALOGUE, Kind, Signal

_QUANTILES = {0.5: ("median", BLUE), 0.95: ("95 %", GREEN), 0.99: ("99 %", NOTE)}

_SPREAD = tuple(
    signal
    for signal in CATALOGUE.values()
    if is_aggregated(signal.name) and not is_counted(signal.name) and signal.kinds != (Kind.REPREFILL,)
)
_FIRST = ("output.entropy", "output.logprob", "output.margin", "sampler.pit")


def _named(signal: Signal) -> str:
    family, _, rest = signal.name.partition(".")
    return f"{family.capitalize()}: {rest.replace('_', ' ')}"


def _by_bucket(signal: Signal) -> str:
    return total("le", rate(f"{histogram_name(signal.name)}_bucket", MODELS, REPLICAS))


def _distribution(signal: Signal) -> Panel:
    return buckets(
        Face(
            _named(signal),
            f"{signal.description} How many values a second fell where. Each point is a request with a trace: follow "
            "it from its tooltip. Bad: a second band, or a cloud of points away from the band; those are the requests.",
            unit(signal),
            width=6 if signal.name in _FIRST else 8,
        ),
        Query(_by_bucket(signal), "{{le}}", form=Form.BUCKETS, exemplars=True),
    )


def _quantiles(signal: Signal) -> Panel:
    return lines(
        Face(
            f"{_named(signal)}, quantiles",
            f"{signal.description} Over requests. Bad: the 99 % line alone moves: a few requests are unusual; the "
            "median as well: all are. Points lead to traces.",
            unit(signal),
        ),
        *(
            Query(f"histogram_quantile({q}, {_by_bucket(signal)})", name, exemplars=q == max(_QUANTILES))
            for q, (name, _) in _QUANTILES.items()
        ),
        colours=dict(_QUANTILES.values()),
    )


def _events(signal: Signal) -> Panel:
    return bars(
        Face(
            f"{_named(signal)}, events",
            f"{signal.description} A second, by model and replica. Bad: any, but for repetition, which tables and "
            "lists have too. The requests are in the alert of that moment.",
            "ops",
            none="never seen",
        ),
        Query(
            total("model, replica", rate(f"{event_name(signal.name)}_total", MODELS, REPLICAS, ADAPTERS)),
            "{{model}} {{replica}}",
        ),
    )


QUANTILES = Section("Which requests stand out?", tuple(_quantiles(CATALOGUE[name]) for name in _FIRST))

EVENTS = Section(
    "Which events point at single requests?",
    tuple(_events(signal) for signal in CATALOGUE.values() if is_counted(signal.name)),
)

DISTRIBUTIONS = Section(
    "Every signal over requests, with points that lead to traces",
    (
        *(_distribution(signal) for signal in _SPREAD if signal.name in _FIRST),
        *(_distribution(signal) for signal in _SPREAD if signal.name not in _FIRST),
    ),
    folded=True,
)
