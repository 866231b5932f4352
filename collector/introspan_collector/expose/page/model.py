"""One model and adapter in, what its page shows at once out; charts ask the JSON API themselves."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from introspan_collector.expose.healthy import healthy
from introspan_collector.expose.page.evidence import levels
from introspan_collector.expose.page.fleet import canary_state, severity, warm_up
from introspan_collector.expose.page.html import NotFoundError
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.sdk_families import worker_name
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.layout import is_aggregated
from introspan_collector.view import View, Worker
from introspan_wire.signals import CATALOGUE, Axis

PARAMETERS = ("model", "adapter", "replica", "signal", "range", "scale", "to")
RANGES = {"15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
SCALES = {
    "reference": "z against the reference",
    "range": "z against the median of this range",
    "value": "value",
}

_DEFAULT_SIGNAL = "residual.log_rms"
_DEFAULT_RANGE = "1h"
_LATEST_UNIX_SECONDS = 2.0**32
_OUTPUTS = tuple(
    name for name, one in CATALOGUE.items() if not one.axes and is_aggregated(name) and name != "sampler.pit"
)


def content(sources: Sources, asked: Parameters) -> Answer:
    """Everything of the model's page that needs no archive."""
    name, adapter = asked.text("model") or "", asked.text("adapter") or ""
    view = sources.aggregates.view()
    workers = [one for one in view.workers if one.origin.model == name]
    references = [one for one in sources.detection.references() if one["model"] == name]
    if not workers and not references:
        raise NotFoundError("model", name, "nothing was heard of it: take one of the fleet")
    reference = next((one for one in references if one["adapter"] == adapter), None)
    chosen = _chosen(asked, name, adapter, reference)
    known_values = healthy(sources, name, adapter)
    detection = sources.detection.detection()
    incidents = [one for one in _of(sources.detection.alarms(), name, adapter) if one["state"] != "resolved"]
    canary = next((one for one in sources.detection.canaries() if one["model"] == name), None)
    return {
        "title": name,
        "model": name,
        "adapter": adapter,
        "adapters": sorted({one["adapter"] for one in references} | {""}),
        "chosen": chosen,
        "signals": _signals(view, name),
        "ranges": RANGES,
        "scales": SCALES,
        "outputs": _outputs(known_values),
        "incidents": incidents,
        "severity": severity(incidents),
        "canary": "absent" if canary is None else canary_state(canary),
        "reference": warm_up(reference),
        "evidence": levels(detection).get((name, adapter), []),
        "drift": [one for one in _of(detection["drift"], name, adapter) if math.isfinite(one["distance"])],
        "table": _table(view, chosen, known_values),
        "window_seconds": view.window_seconds,
        "replicas": sorted({one.origin.replica for one in workers}),
        "coverage": [_coverage(one) for one in workers],
        "layers": _layers(view, workers, name),
    }


def _of(answers: Iterable[Answer], name: str, adapter: str) -> Iterator[Answer]:
    return (one for one in answers if (one["model"], one["adapter"]) == (name, adapter))


def _outputs(known_values: Mapping[tuple[str, int], Answer]) -> list[Answer]:
    return [
        {"signal": one, "unit": CATALOGUE[one].unit, "healthy": known_values.get((one, -1))}
        for one in _OUTPUTS
    ]


def _chosen(asked: Parameters, name: str, adapter: str, reference: Answer | None) -> Answer:
    known = reference is not None and reference["reference"] is not None
    chosen = {
        "model": name,
        "adapter": adapter,
        "replica": asked.text("replica") or "",
        "signal": asked.signal("signal") or _DEFAULT_SIGNAL,
        "range": asked.text("range") or _DEFAULT_RANGE,
        "to": _end(asked),
        "scale": asked.text("scale") or ("reference" if known else "range"),
    }
    for key, options in (("range", RANGES), ("scale", SCALES)):
        if chosen[key] not in options:
            raise ParameterError(key, str(chosen[key]), f"must be one of {', '.join(options)}")
    return chosen


def _end(asked: Parameters) -> float | None:
    """When the range ends, in Unix seconds; None for now, which moves."""
    return None if asked.text("to") is None else asked.number("to", 0.0, 0.0, _LATEST_UNIX_SECONDS)


def _signals(view: View, model: str) -> list[Answer]:
    """Signals by layer that are measured here, and all others that the catalogue has."""
    measured = {key.signal for key in view.series if key.model == model}
    return [
        {"name": name, "is_measured": name in measured, "description": one.description}
        for name, one in CATALOGUE.items()
        if Axis.LAYER in one.axes and is_aggregated(name)
    ]


# Any: JSON.
def _table(view: View, chosen: Answer, known: dict[tuple[str, int], Answer]) -> list[dict[str, Any]]:
    """The last minute of the chosen signal, layer by layer, replicas apart."""
    wanted = (chosen["model"], chosen["adapter"], chosen["signal"])
    rows = []
    for i, key in enumerate(view.series):
        is_shown = (key.model, key.adapter, key.signal) == wanted and chosen["replica"] in ("", key.replica)
        if not is_shown or not view.window.count[i]:
            continue
        mean = float(view.window.mean[i])
        of = known.get((key.signal, key.layer))
        z = None if of is None or not of["stddev"] else (mean - of["mean"]) / of["stddev"]
        layer = key.layer if key.layer >= 0 else None
        rows.append(
            {
                "layer": layer,
                "replica": key.replica,
                "mean": mean,
                "count": int(view.window.count[i]),
                "healthy": of,
                "z": z,
            }
        )
    return sorted(rows, key=lambda row: (-1 if row["layer"] is None else row["layer"], row["replica"]))


def _coverage(worker: Worker) -> Answer:
    status, segments = worker.status, dict(worker.segments)
    return {
        "replica": worker.origin.replica,
        "worker": worker_name(worker),
        "engine": f"{worker.origin.engine} {worker.origin.engine_version}",
        "dtype": worker.origin.dtype,
        "fingerprint": worker.origin.fingerprint,
        "last_seen": worker.last_seen_unix_nano / 1e9,
        "segments": segments,
        "status": status,
        "dropped": 0 if status is None else sum(count for _, count in status.drops),
    }


def _layers(view: View, workers: list[Worker], model: str) -> list[Answer]:
    """Which layers are measured, in words and as places from 0 to 1."""
    total = max((worker.origin.layer_count for worker in workers), default=0)
    by_family: dict[str, set[int]] = {}
    for key in view.series:
        if key.model == model and key.layer >= 0:
            by_family.setdefault(key.signal.partition(".")[0], set()).add(key.layer)
    return [
        {"family": family, "measured": sorted(layers), "total": max(total, max(layers) + 1)}
        for family, layers in sorted(by_family.items())
    ]
