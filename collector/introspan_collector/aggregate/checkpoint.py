"""Cumulative state in, bytes out — and back."""

import io
import json
import zipfile

import numpy as np

from introspan_collector.model import SeriesKey
from introspan_collector.view import Histogram
from introspan_wire.signals import CATALOGUE

_VERSION = 1


def dump(events: list[tuple[SeriesKey, float]], histograms: list[Histogram]) -> bytes:
    """The state as bytes."""
    header = {
        "version": _VERSION,
        "events": [[*key, total] for key, total in events],
        "histograms": [[view.model, view.replica, view.signal, view.total] for view in histograms],
    }
    counts = np.concatenate([view.counts for view in histograms]) if histograms else np.zeros(0)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), counts=counts)
    return buffer.getvalue()


def load(data: bytes) -> tuple[list[tuple[SeriesKey, float]], list[Histogram]]:
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
    return [(SeriesKey(*key), total) for *key, total in header["events"]], histograms
