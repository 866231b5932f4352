"""What comes out? Signals without layers: the next token's distribution, the sampler, repetition."""

from deploy.grafana.layout import Section
from deploy.grafana.links import REQUESTS, same
from deploy.grafana.panels import Face, Panel, bars, lines
from deploy.grafana.queries import Query, of, rate, total
from deploy.grafana.units import unit
from deploy.grafana.variables import ADAPTERS, MODEL, REPLICAS
from introspan_collector.expose.names import event_name, gauge_name
from introspan_collector.layout import is_aggregated, is_counted
from introspan_wire.signals import CATALOGUE, Signal

_FLAT = tuple(signal for signal in CATALOGUE.values() if not signal.axes and is_aggregated(signal.name))

_BAD = {
    "output.entropy": "a step: near 0 the model repeats itself or was cut short, near ln of the vocabulary it guesses.",
    "output.margin": "a step down beside a step up of the entropy: the model lost its way, not only its wording.",
    "output.logprob": "a fall: tokens are delivered that the model itself finds unlikely.",
    "sampler.pit": "a mean that stays away from 0.5: the sampler does not draw what was asked for.",
}


def _mean(signal: Signal) -> Panel:
    return lines(
        Face(
            _named(signal),
            f"{signal.description} Mean over the last minute's segments. Bad: {_BAD[signal.name]}",
            unit(signal),
        ),
        Query(f"avg by (replica) ({of(gauge_name(signal.name), MODEL, REPLICAS, ADAPTERS)})", "{{replica}}"),
        links=(same(REQUESTS, "Requests at that time"),),
    )


def _events(signal: Signal) -> Panel:
    return bars(
        Face(
            f"{_named(signal)}, events",
            f"{signal.description} A second, by replica. Bad: {_many(signal)}",
            "ops",
            none="never seen",
            width=8,
        ),
        Query(
            total("replica", rate(f"{event_name(signal.name)}_total", MODEL, REPLICAS, ADAPTERS)),
            "{{replica}}",
        ),
    )


def _many(signal: Signal) -> str:
    if signal.name == "output.repetition":
        return "more than is usual here; tables and lists repeat too."
    return "any; no healthy model has them."


def _named(signal: Signal) -> str:
    family, _, rest = signal.name.partition(".")
    return f"{family.capitalize()}: {rest.replace('_', ' ')}"


SECTION = Section(
    "What comes out?",
    (
        *(_mean(signal) for signal in _FLAT if not is_counted(signal.name)),
        *(_events(signal) for signal in _FLAT if is_counted(signal.name)),
    ),
)
