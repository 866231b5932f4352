"""Metric families in, text exposition out: Prometheus 0.0.4, or OpenMetrics 1.0 with exemplars.

prometheus_client has the same encoders, but they look at every label name of every sample character by
character: 1.3 s for 50,000 series where this takes 0.1 s. A test compares the two.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family whose sample lines are already text. A counter's name is without _total."""

    name: str
    type: str
    documentation: str
    lines: list[str]


def finished(metric: Metric) -> Family:
    """A family of prometheus_client as text; its exemplars are left out."""
    lines = [f"{s.name}{_labels(s.labels)} {number_text(s.value)}\n" for s in metric.samples]
    return Family(metric.name, metric.type, metric.documentation, lines)


def encode(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    """The text of families that have lines."""
    parts: list[str] = []
    for family in families:
        if family.lines:
            parts.extend(_header(family, openmetrics=openmetrics))
            parts.extend(family.lines)
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def escaped(value: str) -> str:
    """A label's value as it stands between quotes."""
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def number_text(value: float) -> str:
    """A number as both formats write it."""
    number = float(value)
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"


def exemplar_text(labels: Mapping[str, str], value: float, time_unix_seconds: float) -> str:
    """What follows a bucket's value in OpenMetrics. Labels may have 128 characters together."""
    # Half a microsecond is the resolution of a double of today's Unix time.
    return f" # {_labels(labels)} {number_text(value)} {time_unix_seconds:.6f}"


def _header(family: Family, *, openmetrics: bool) -> Iterator[str]:
    name, text = family.name, family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    elif family.type == "counter":
        name += "_total"
    yield f"# HELP {name} {text}\n"
    yield f"# TYPE {name} {family.type}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(labels[name])}"' for name in sorted(labels)) + "}"
