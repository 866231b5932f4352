"""When alerts about what servers send fire, do not fire, and end."""

from tests.deploy.rules import Case

_AT = 'instance="c:9464",job="introspan"'
_UP = {f"up{{{_AT}}}": "1+0x400"}
_DOWN = {f"up{{{_AT}}}": "0+0x400"}
_WARNING, _INFO = ({"severity": name} for name in ("warning", "info"))


def _worker(name: str, replica: str, worker: int = 0, more: str = "", at: str = _AT) -> str:
    who = f'model="m",replica="{replica}",worker="tp0-pp0-dp{worker}"'
    return f"{name}{{{at},{who}{more}}}"


_SEEN = "introspan_sdk_last_seen_timestamp_seconds"
_DISABLED = "introspan_capture_disabled"
_DROPPED = "introspan_sdk_dropped_segments_total"
_SEGMENTS = "introspan_segments_total"
_QUEUE = "introspan_sdk_queue_age_seconds"
_LOST_ROWS, _ROWS = "introspan_sdk_dropped_rows_total", "introspan_sdk_measured_rows_total"


def _off(worker: int, reason: str, values: str) -> dict[str, str]:
    return {_worker(_DISABLED, "r0", worker, f',signal="attention",reason="{reason}"'): values}


def _disabled(reason: str) -> dict[str, str]:
    return {"instance": "c:9464", "model": "m", "signal": "attention", "reason": reason}


_SILENCE = (
    Case(
        "IntrospanReplicaSilent",
        "one that spoke, beside one that speaks, for an hour",
        {_worker(_SEEN, "r0"): "0+60x120", _worker(_SEEN, "r1"): "0+60x10 600+0x15 stale", **_UP},
        {time: [{**_WARNING, "model": "m", "replica": "r1"}] for time in ("16m", "60m")},
        ["15m", "110m"],
    ),
    Case(
        "IntrospanReplicaSilent",
        "not one that another collector hears",
        {
            _worker(_SEEN, "r0"): "0+60x120",
            _worker(_SEEN, "r1"): "0+60x10 600+0x15 stale",
            _worker(_SEEN, "r1", at='instance="d:9464",job="introspan"'): "_x10 600+60x100",
            **_UP,
        },
        quiet=["20m", "60m"],
    ),
    Case(
        "IntrospanReplicaSilent",
        "not where the whole model is silent",
        {
            _worker(_SEEN, "r0"): "0+60x10 600+0x15 stale",
            _worker(_SEEN, "r1"): "0+60x10 600+0x15 stale",
            **_UP,
        },
        quiet=["16m", "19m", "40m"],
    ),
    Case(
        "IntrospanReplicaSilent",
        "not while a collector is down",
        {_worker(_SEEN, "r0"): "0+60x120", _worker(_SEEN, "r1"): "0+60x10 600+0x100", **_DOWN},
        quiet=["20m", "60m"],
    ),
    Case(
        "IntrospanModelSilent",
        "until it is heard again",
        {_worker(_SEEN, "r0"): "0+60x10 600+0x15 _x20 2820+60x30", **_UP},
        {time: [{**_WARNING, "model": "m"}] for time in ("21m", "40m")},
        ["20m", "60m"],
    ),
    Case(
        "IntrospanModelSilent",
        "not while the collector is down",
        {_worker(_SEEN, "r0"): "0+60x10 stale", **_DOWN},
        quiet=["40m"],
    ),
    Case(
        "IntrospanNoTelemetry",
        "until the first worker is heard",
        {_worker(_SEEN, "r0"): "_x30 1800+60x30", **_UP},
        {"15m": [_WARNING]},
        ["14m", "40m"],
    ),
    Case("IntrospanNoTelemetry", "not while the collector is down", _DOWN, quiet=["40m"]),
)

_CAPTURE = (
    Case(
        "IntrospanCaptureDisabled",
        "what failed is a ticket, once for all workers",
        {
            **_off(0, "self_check_failed", "_x5 1+0x20 stale"),
            **_off(1, "self_check_failed", "_x5 1+0x20 stale"),
        },
        {"15m": [{**_WARNING, **_disabled("self_check_failed")}]},
        ["14m", "40m"],
    ),
    Case(
        "IntrospanCaptureDisabled",
        "what a model does not have is shown only",
        _off(0, "unsupported_attention", "1+0x20 stale"),
        {"10m": [{**_INFO, **_disabled("unsupported_attention")}]},
        ["9m", "30m"],
    ),
    Case(
        "IntrospanCaptureDisabled",
        "not for less than ten minutes",
        _off(0, "probe_error", "_x5 1+0x8 stale"),
        quiet=["12m", "20m"],
    ),
    Case(
        "IntrospanSegmentsDropped",
        "one in twenty",
        {
            _worker(_DROPPED, "r0", more=',reason="queue_full"'): "0+5x40 200+0x40",
            _worker(_SEGMENTS, "r0", more=',kind="decoded"'): "0+95x80",
        },
        {"14m": [{**_WARNING, "model": "m", "replica": "r0"}]},
        ["13m", "75m"],
    ),
    Case(
        "IntrospanSegmentsDropped",
        "not one in a thousand",
        {
            _worker(_DROPPED, "r0", more=',reason="queue_full"'): "0+5x40",
            _worker(_SEGMENTS, "r0", more=',kind="decoded"'): "0+4995x40",
        },
        quiet=["30m"],
    ),
    Case(
        "IntrospanSegmentsDropped",
        "not a few of a few",
        {
            _worker(_DROPPED, "r0", more=',reason="queue_full"'): "0+1x40",
            _worker(_SEGMENTS, "r0", more=',kind="decoded"'): "0+1x40",
        },
        quiet=["30m"],
    ),
    Case(
        "IntrospanQueueOld",
        "a queue that a slow collector fills, and that empties again",
        {_worker(_QUEUE, "r0"): "0x9 30+20x9 0x30", _worker(_SEEN, "r0"): "0+60x50"},
        {"16m": [{**_WARNING, "model": "m", "replica": "r0"}]},
        ["15m", "20m"],
    ),
    Case(
        "IntrospanQueueOld",
        "not what a worker said last that speaks no more",
        {_worker(_QUEUE, "r0"): "120x50", _worker(_SEEN, "r0"): "0x50"},
        quiet=["9m", "30m"],
    ),
    Case(
        "IntrospanQueueOld",
        "not half a minute, nor for a moment",
        {_worker(_QUEUE, "r0"): "30x20 90x3 0x20", _worker(_SEEN, "r0"): "0+60x50"},
        quiet=["15m", "23m", "24m"],
    ),
    Case(
        "IntrospanRowsDropped",
        "one in twenty",
        {
            _worker(_LOST_ROWS, "r0", more=',reason="discarded"'): "0+50x40 2000+0x40",
            _worker(_ROWS, "r0"): "0+1000x80",
        },
        {"12m": [{**_WARNING, "model": "m", "replica": "r0"}]},
        ["11m", "75m"],
    ),
    Case(
        "IntrospanRowsDropped",
        "not those of tokens that nobody got",
        {
            _worker(_LOST_ROWS, "r0", more=',reason="not_delivered"'): "0+50x40",
            _worker(_ROWS, "r0"): "0+1000x40",
        },
        quiet=["30m"],
    ),
    Case(
        "IntrospanRowsDropped",
        "not one in a thousand",
        {
            _worker(_LOST_ROWS, "r0", more=',reason="discarded"'): "0+50x40",
            _worker(_ROWS, "r0"): "0+50000x40",
        },
        quiet=["30m"],
    ),
    Case(
        "IntrospanRowsDropped",
        "not a few of a few",
        {_worker(_LOST_ROWS, "r0", more=',reason="discarded"'): "0+2x40", _worker(_ROWS, "r0"): "0+2x40"},
        quiet=["30m"],
    ),
)

CASES = (*_SILENCE, *_CAPTURE)
