"""JSON requests in, JSON answers out: what is served, what was measured, and how it went."""

from collections.abc import Callable

import numpy as np
from starlette.routing import Route

from introspan_collector.expose import questions
from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.sdk_families import worker_name
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.expose.tracks import PARAMETERS, answer, layer_or_none, question
from introspan_collector.layout import is_aggregated, is_counted
from introspan_collector.view import View, Worker
from introspan_wire.signals import CATALOGUE, Kind

_ITEMS = 10_000
_FILTERS = ("model", "replica", "adapter", "signal")


def routes(sources: Sources) -> list[Route]:
    """The routes of what is served and measured, below /api/v1."""

    def route(path: str, known: tuple[str, ...], answer: Callable[[Sources, Parameters], Answer]) -> Route:
        return questions.route(sources, path, known, answer)

    return [
        route("models", (), _models),
        route("replicas", ("model",), _replicas),
        route("layers", ("model", "replica"), _layers),
        route("signals", (), _signals),
        route("query", PARAMETERS, lambda where, asked: answer(where, question(asked))),
        route("latest", (*_FILTERS, "limit"), _latest),
        route("status", ("model", "replica"), _status),
    ]


def _models(sources: Sources, _: Parameters) -> Answer:
    view = sources.aggregates.view()
    by_model: dict[str, list[Worker]] = {}
    for worker in view.workers:
        by_model.setdefault(worker.origin.model, []).append(worker)
    return {
        "models": [
            {
                "model": model,
                "replicas": len({worker.origin.replica for worker in workers}),
                "fingerprints": sorted({worker.origin.fingerprint for worker in workers}),
                "layer_count": max(worker.origin.layer_count for worker in workers),
                "head_count": max(worker.origin.head_count for worker in workers),
                "last_seen": max(worker.last_seen_unix_nano for worker in workers) / 1e9,
            }
            for model, workers in sorted(by_model.items())[:_ITEMS]
        ]
    }


def _replicas(sources: Sources, asked: Parameters) -> Answer:
    return {
        "replicas": [
            {
                **_identity(worker),
                "service": worker.origin.service,
                "fingerprint": worker.origin.fingerprint,
                "engine": worker.origin.engine,
                "engine_version": worker.origin.engine_version,
                "sdk_version": worker.origin.sdk_version,
                "dtype": worker.origin.dtype,
                "layer_count": worker.origin.layer_count,
                "head_count": worker.origin.head_count,
                "last_seen": worker.last_seen_unix_nano / 1e9,
            }
            for worker in _workers(sources.aggregates.view(), asked)
        ]
    }


def _layers(sources: Sources, asked: Parameters) -> Answer:
    view = sources.aggregates.view()
    layers: dict[tuple[str, str], dict[str, set[int]]] = {}
    for key in view.series:
        if key.layer >= 0 and _matches(asked, model=key.model, replica=key.replica):
            layers.setdefault((key.model, key.replica), {}).setdefault(key.signal, set()).add(key.layer)
    return {
        "layers": [
            {
                "model": model,
                "replica": replica,
                "signals": {signal: sorted(of) for signal, of in sorted(signals.items())},
            }
            for (model, replica), signals in sorted(layers.items())[:_ITEMS]
        ]
    }


def _signals(sources: Sources, _: Parameters) -> Answer:
    measured = {key.signal for key in sources.aggregates.view().series}
    return {
        "signals": [
            {
                "signal": signal.name,
                "description": signal.description,
                "formula": signal.formula,
                "unit": signal.unit,
                "axes": [axis.value for axis in signal.axes],
                "statistics": {kind.value: [s.value for s in signal.statistics(kind)] for kind in Kind},
                "gauge": gauge_name(signal.name) if is_aggregated(signal.name) else None,
                "histogram": histogram_name(signal.name) if is_aggregated(signal.name) else None,
                "counter": f"{event_name(signal.name)}_total" if is_counted(signal.name) else None,
                "measured": signal.name in measured,
            }
            for signal in CATALOGUE.values()
        ]
    }


def _latest(sources: Sources, asked: Parameters) -> Answer:
    limit = asked.whole("limit", _ITEMS, 1, _ITEMS)
    asked.signal("signal")
    view = sources.aggregates.view()
    measured = view.window.count > 0
    chosen = [
        i
        for i in np.flatnonzero(measured).tolist()
        if _matches(asked, **{name: getattr(view.series[i], name) for name in _FILTERS})
    ]
    chosen.sort(key=lambda i: view.series[i])
    shown = np.array(chosen[:limit], np.intp)
    window = view.window.at(shown)
    stddev = np.sqrt(window.m2 / window.weight)
    columns = (window.count, window.mean, stddev, window.low, window.high)
    rows = zip(shown.tolist(), *(column.tolist() for column in columns), strict=True)
    return {
        "time": view.time_unix_nano / 1e9,
        "window_seconds": view.window_seconds,
        "truncated": len(chosen) > limit,
        "series": [
            {
                "model": view.series[i].model,
                "replica": view.series[i].replica,
                "adapter": view.series[i].adapter,
                "signal": view.series[i].signal,
                "layer": layer_or_none(view.series[i]),
                "count": count,
                "mean": mean,
                "stddev": deviation,
                "min": low,
                "max": high,
            }
            for i, count, mean, deviation, low, high in rows
        ],
    }


def _status(sources: Sources, asked: Parameters) -> Answer:
    view = sources.aggregates.view()
    return {
        "time": view.time_unix_nano / 1e9,
        "replicas": [_worker_status(worker) for worker in _workers(view, asked)],
    }


def _worker_status(worker: Worker) -> Answer:
    answer: Answer = {
        **_identity(worker),
        "last_seen": worker.last_seen_unix_nano / 1e9,
        "segments": dict(worker.segments),
    }
    status = worker.status
    if status is not None:
        answer |= {
            "measured_steps": status.measured_steps,
            "measured_rows": status.measured_rows,
            "capture_seconds": status.capture_seconds,
            "probe_errors": status.probe_errors,
            "sampler_rows_skipped": status.sampler_rows_skipped,
            "attention_rows_skipped": status.attention_rows_skipped,
            "sampling_probability": status.sampling_probability,
            "drops": dict(status.drops),
            "dropped_requests": dict(status.dropped_requests),
            "dropped_rows": dict(status.dropped_rows),
            "disabled": [
                {"signal": item.signal, "reason": item.reason, "detail": item.detail}
                for item in status.disabled
            ],
        }
    return answer


def _identity(worker: Worker) -> Answer:
    return {"model": worker.origin.model, "replica": worker.origin.replica, "worker": worker_name(worker)}


def _workers(view: View, asked: Parameters) -> list[Worker]:
    found = [
        worker
        for worker in view.workers
        if _matches(asked, model=worker.origin.model, replica=worker.origin.replica)
    ]
    return sorted(
        found, key=lambda worker: (worker.origin.model, worker.origin.replica, worker_name(worker))
    )[:_ITEMS]


def _matches(asked: Parameters, **has: str) -> bool:
    return all(asked.text(key) in (None, value) for key, value in has.items())
