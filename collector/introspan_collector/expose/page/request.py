"""A request's id in, its page out: what it was, what is unusual about it, and the incidents it is an example of."""

import time

from introspan_collector.expose.page.html import NotFoundError
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.reply import RefusedError
from introspan_collector.expose.requests import looked_up
from introspan_collector.expose.sources import Answer, Sources
from introspan_wire.signals import CATALOGUE, Axis

PARAMETERS = ("id", "from", "to", "signal")

_MOST_STANDING_OUT = 8
_MOST_ROWS = 200
_UNUSUAL = 0.01


def content(sources: Sources, asked: Parameters) -> Answer:
    """The page of a request; without an id the place to enter one."""
    id_ = asked.text("id") or ""
    if not id_:
        return {"title": "Request", "id": "", "requests": [], "chosen": {}, "signals": []}
    try:
        found = looked_up(sources, asked, time.time())["requests"]
    except RefusedError as error:
        raise NotFoundError(error.key, error.value, error.remedy) from error
    return {
        "title": f"Request {id_}",
        "id": id_,
        "chosen": {
            "signal": asked.signal("signal") or "residual.log_rms",
            "from": asked.text("from") or "",
            "to": asked.text("to") or "",
        },
        "signals": [name for name, one in CATALOGUE.items() if Axis.LAYER in one.axes],
        "requests": [_shown(sources, one) for one in found],
    }


def _shown(sources: Sources, request: Answer) -> Answer:
    values = [
        {**value, "kind": segment["kind"], "tokens": _tokens(segment)}
        for segment in request["segments"]
        for value in segment["values"]
    ]
    measured = [one for one in values if one["z"] is not None]
    return {
        **request,
        "verdict": _verdict(request["judged"]),
        "standing_out": sorted(measured, key=lambda one: -abs(one["z"]))[:_MOST_STANDING_OUT],
        "outputs": _outputs(request["segments"][:_MOST_ROWS]),
        "left_out_rows": max(len(request["segments"]) - _MOST_ROWS, 0) + request["left_out_segments"],
        # One measured token each, where the server sends them so.
        "are_tokens": all(segment["token_count"] == 1 for segment in request["segments"]),
        "examples": _examples(sources, request["request_id"]),
    }


def _tokens(segment: Answer) -> str:
    first, count = segment["token_start"], segment["token_count"]
    return f"{first}" if count == 1 else f"{first}\u2009–\u2009{first + count - 1}"


def _verdict(judged: list[Answer]) -> Answer:
    """What the detector of unusual requests makes of it, in words; the rarest of its rows decides."""
    ranked = [one for one in judged if one["rank"] is not None]
    if not ranked:
        return {"state": "unknown", "rank": None, "row": None}
    row = min(ranked, key=lambda one: one["rank"])
    # No healthy request is as unusual: its rank is that of one more than there are.
    is_beyond_all = row["rank"] * (row["compared_with"] + 1) < 1.5
    is_unusual = row["rank"] <= _UNUSUAL or row["outside_classes"]
    return {
        "state": "beyond" if is_beyond_all else "unusual" if is_unusual else "usual",
        "rank": row["rank"],
        "row": row,
    }


def _outputs(segments: list[Answer]) -> list[Answer]:
    """A row for each segment with its signals that have no layers."""
    names = sorted({one["signal"] for of in segments for one in of["values"] if one["layer"] is None})
    return [
        {
            **{key: segment[key] for key in ("kind", "token_count", "measured_count", "time")},
            "tokens": _tokens(segment),
            "values": {one["signal"]: one for one in segment["values"] if one["layer"] is None},
            "names": names,
        }
        for segment in segments
    ]


def _examples(sources: Sources, request_id: str) -> list[Answer]:
    return [
        {"incident": one, "exemplar": exemplar}
        for one in sources.detection.alarms()
        for exemplar in one["exemplars"]
        if exemplar["request_id"] == request_id
    ]
