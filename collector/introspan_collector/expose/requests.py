"""A request's id in, its insides segment by segment and layer by layer out, and what is unusual about them."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
from starlette.routing import Route

from introspan_collector.expose.heatmap import required_model
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.questions import route
from introspan_collector.expose.reply import RefusedError
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.layout import layout
from introspan_collector.view import Stored
from introspan_wire.signals import CATALOGUE

_MOST_LISTED = 200
_MOST_SEGMENTS = 1_000
_SEGMENTS_EACH = (4, 64)
"""So many segments of each request are looked through; the second where tokens come by themselves."""
_MOST_LOOKED_THROUGH = 4_000
_DEFAULT_HOURS = 24.0
_LONGEST_HOURS = 24.0 * 366
_NAME_CHARACTERS = 512
_Healthy = dict[tuple[str, str, int], Answer]


def routes(sources: Sources, clock: Callable[[], float] = time.time) -> list[Route]:
    """The routes of requests."""
    return [
        route(sources, "requests", ("model", "replica", "adapter", "limit"), _newest),
        route(
            sources,
            "request",
            ("id", "from", "to", "signal"),
            lambda where, asked: looked_up(where, asked, clock(), asked.signal("signal")),
        ),
    ]


def _newest(sources: Sources, asked: Parameters) -> Answer:
    model, limit = required_model(asked), asked.whole("limit", 50, 1, _MOST_LISTED)
    who = model, asked.text("replica"), asked.text("adapter")
    by_id: dict[str, Answer] = {}
    for each in _SEGMENTS_EACH:
        segments = min(each * limit, _MOST_LOOKED_THROUGH)
        by_id = _by_id(found := sources.archive.newest(*who, None, segments))
        if len(by_id) >= limit or sum(len(stored.table) for stored in found) < segments:
            break
    return {"requests": list(by_id.values())[:limit]}


def _by_id(found: list[Stored]) -> dict[str, Answer]:
    by_id: dict[str, Answer] = {}
    for stored in found:
        for row in range(len(stored.table) - 1, -1, -1):
            one = by_id.setdefault(stored.table.request_id[row], _listed(stored, row))
            one["segments"] += 1
    return by_id


def _listed(stored: Stored, row: int) -> Answer:
    table = stored.table
    return {
        "request_id": table.request_id[row],
        "trace_id": _hex(table.trace_id[row]),
        "model": stored.model,
        "replica": stored.replica,
        "adapter": table.adapter[row],
        "time": float(table.time_unix_nano[row]) / 1e9,
        "prompt_tokens": int(table.prompt_tokens[row]),
        "segments": 0,
    }


def looked_up(sources: Sources, asked: Parameters, now: float, signal: str | None = None) -> Answer:
    """The requests that an id stands for, each with its first thousand segments; signal: of that one alone.

    Raises ParameterError, and RefusedError where nothing is known of it.
    """
    id_ = asked.text("id")
    if not id_ or len(id_) > _NAME_CHARACTERS:
        raise ParameterError(
            "id", (id_ or "")[:100], "is required: the id of a request, at most 512 characters"
        )
    end = asked.number("to", now, 0.0, now + 86_400.0)
    start = asked.number("from", end - _DEFAULT_HOURS * 3600, end - _LONGEST_HOURS * 3600, end)
    found = sources.archive.request(id_, start, end)
    if not found:
        remedy = (
            "nothing measured of it is in the archive between from and to: most requests may not be sampled"
        )
        raise RefusedError(404, "id", id_, remedy)
    requests = []
    for who, of_request in groupby(sorted(_rows(found), key=_order), key=lambda one: one[0]):
        rows = [(stored, row) for _, _, stored, row in of_request]
        requests.append(_shown(sources, who, rows, signal))
    return {"requests": requests}


_Row = tuple[tuple[str, str, str, str], tuple[int, int], Stored, int]


def _rows(found: list[Stored]) -> Iterator[_Row]:
    for stored in found:
        table = stored.table
        for row in range(len(table)):
            who = (table.request_id[row], stored.model, table.adapter[row], stored.replica)
            yield who, (int(table.token_start[row]), int(table.segment_index[row])), stored, row


def _order(one: _Row) -> tuple[tuple[str, str, str, str], tuple[int, int]]:
    return one[0], one[1]


def _shown(
    sources: Sources, who: tuple[str, str, str, str], rows: list[tuple[Stored, int]], signal: str | None
) -> Answer:
    request_id, model, adapter, replica = who
    known = {
        (one["kind"], one["signal"], one["layer"]): one for one in sources.detection.healthy(model, adapter)
    }
    stored, first = rows[0]
    tables = [one.table for one in {id(stored): stored for stored, _ in rows}.values()]
    judged = sources.detection.judged(model, adapter, tables)
    return {
        **_listed(stored, first),
        "request_id": request_id,
        "replica": replica,
        "segments": [_segment(of, row, known, signal) for of, row in rows[:_MOST_SEGMENTS]],
        "left_out_segments": max(len(rows) - _MOST_SEGMENTS, 0),
        "judged": [one for one in judged if one["request_id"] == request_id],
    }


def _segment(stored: Stored, row: int, known: _Healthy, signal: str | None) -> Answer:
    table, kind = stored.table, stored.table.schema.kind.value
    return {
        "kind": kind,
        "segment": int(table.segment_index[row]),
        "token_start": int(table.token_start[row]),
        "token_count": int(table.token_count[row]),
        "measured_count": int(table.measured_count[row]),
        "prompt_tokens": int(table.prompt_tokens[row]),
        "cached_tokens": int(table.cached_tokens[row]),
        "time": float(table.time_unix_nano[row]) / 1e9,
        "sampling_probability": float(table.sampling_probability[row]),
        "values": [one for one in _values(stored, row, known) if signal in (None, one["signal"])],
    }


# Any: JSON.
def _values(stored: Stored, row: int, known: _Healthy) -> Iterator[dict[str, Any]]:
    """One value for each signal and layer, heads averaged as in everything that is compared with a reference."""
    plan = layout(stored.table.schema)
    if not plan.groups:
        return
    values = stored.table.values[row, plan.order].astype(np.float64)
    sizes = np.diff([*plan.column_starts.tolist(), len(plan.order)])
    means = np.add.reduceat(values, plan.column_starts) / sizes
    for (signal, layer), value in zip(plan.groups, means.tolist(), strict=True):
        if not math.isfinite(value):
            continue
        healthy = known.get((stored.table.schema.kind.value, signal, layer))
        yield {
            "signal": signal,
            "unit": CATALOGUE[signal].unit,
            "layer": layer if layer >= 0 else None,
            "value": value,
            "healthy": None if healthy is None else {"mean": healthy["mean"], "stddev": healthy["stddev"]},
            "z": _z(value, healthy),
        }


def _z(value: float, healthy: Answer | None) -> float | None:
    return None if healthy is None or not healthy["stddev"] else (value - healthy["mean"]) / healthy["stddev"]


def _hex(id_: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> str:
    return id_.tobytes().hex() if id_.any() else ""
