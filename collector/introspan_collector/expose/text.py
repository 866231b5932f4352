"""Metric families in, text exposition out: Prometheus 0.0.4, or OpenMetrics 1.0 with exemplars.

prometheus_client has the same encoders, but they look at every label name of every sample character by
character: 1.3 s for 50,000 series where this takes 0.2 s. A test compares the two.
"""

import math
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample


def encode(families: Iterable[Metric], *, openmetrics: bool) -> bytes:
    """The text of families that have samples. Names are trusted to be valid; label values and help are escaped."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines += _header(family, openmetrics=openmetrics)
            lines += (_line(sample, openmetrics=openmetrics) for sample in family.samples)
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


def _header(family: Metric, *, openmetrics: bool) -> Iterator[str]:
    name, text = family.name, family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    elif family.type == "counter":
        name += "_total"
    yield f"# HELP {name} {text}\n"
    yield f"# TYPE {name} {family.type}\n"


def _line(sample: Sample, *, openmetrics: bool) -> str:
    exemplar = _exemplar(sample.exemplar) if openmetrics and sample.exemplar else ""
    return f"{sample.name}{_labels(sample.labels)} {_number(sample.value)}{exemplar}\n"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(labels[name])}"' for name in sorted(labels)]) + "}"


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _number(value: float) -> str:
    number = float(value)
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"


def _exemplar(exemplar: Exemplar) -> str:
    # Half a microsecond is the resolution of a double of today's Unix time.
    when = "" if exemplar.timestamp is None else f" {float(exemplar.timestamp):.6f}"
    return f" # {_labels(exemplar.labels)} {_number(exemplar.value)}{when}"
