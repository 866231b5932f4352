"""Cumulative state in, bytes out — and back."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from introspan_collector.model import DisabledSignal, Origin, ProducerStatus, SeriesKey
from introspan_collector.reasons import DROPS
from introspan_collector.view import Histogram, Worker
from introspan_wire.signals import CATALOGUE

_VERSION = 1


class State(NamedTuple):
    """What outlives the process: totals since the collector's state began, and what each worker last said."""

    events: Sequence[tuple[SeriesKey, float]]
    histograms: Sequence[Histogram]
    workers: Sequence[Worker]


def dump(state: State) -> bytes:
    """The state as bytes."""
    events, histograms, workers = state
    header = {
        "version": _VERSION,
        "events": [[*key, total] for key, total in events],
        "histograms": [[view.model, view.replica, view.signal, view.total] for view in histograms],
        "workers": workers,
    }
    counts = np.concatenate([view.counts for view in histograms]) if histograms else np.zeros(0)
    buffer = io.BytesIO()
    np.savez(
        buffer, header=np.frombuffer(json.dumps(header, default=_by_name).encode(), np.uint8), counts=counts
    )
    return buffer.getvalue()


def load(data: bytes) -> State:
    """The state of bytes that `dump` made. Raises ValueError for others.

    Histograms whose signal or number of buckets this version does not know are left out.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            header, counts = json.loads(archive["header"].tobytes()), archive["counts"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"checkpoint of the aggregates is damaged ({error}): delete it to start anew"
        ) from error
    if header.get("version") != _VERSION:
        raise ValueError(
            f"checkpoint of the aggregates has version {header.get('version')}, not {_VERSION}: delete it"
        )
    histograms = []
    start = 0
    for model, replica, signal, total in header["histograms"]:
        if signal not in CATALOGUE:
            continue
        bounds = CATALOGUE[signal].buckets
        end = start + len(bounds) + 1
        histograms.append(Histogram(model, replica, signal, bounds, counts[start:end], total, {}))
        start = end
    events = [(SeriesKey(*key), total) for *key, total in header["events"]]
    # Checkpoints from before workers were saved have none, and are otherwise the same.
    return State(events, histograms, [_worker(saved) for saved in header.get("workers", ())])


# Any: one of the dataclasses that a Worker consists of, and the JSON it becomes.
def _by_name(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _worker(saved: dict[str, Any]) -> Worker:
    status = saved["status"]
    try:
        return Worker(
            Origin(**saved["origin"] | {"attributes": _pairs(saved["origin"]["attributes"])}),
            None if status is None else _status(status),
            saved["last_seen_unix_nano"],
            _pairs(saved["segments"]),
        )
    except TypeError as error:
        raise ValueError(
            f"checkpoint of the aggregates has a worker of another version ({error}): delete it"
        ) from error


def _status(saved: dict[str, Any]) -> ProducerStatus:
    disabled = tuple(DisabledSignal(**one) for one in saved["disabled"])
    # Not every checkpoint has all of them: some were added later.
    drops = {name: _pairs(saved[name]) for name in DROPS if name in saved}
    return ProducerStatus(**saved | drops | {"disabled": disabled})


def _pairs(saved: list[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((name, value) for name, value in saved)
