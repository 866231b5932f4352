"""When alerts about the collector fire, do not fire, and end."""

from tests.deploy.rules import Case

_AT = 'instance="c:9464",job="introspan"'
_UP = f"up{{{_AT}}}"
_CRITICAL, _WARNING, _INFO = ({"severity": name} for name in ("critical", "warning", "info"))
_WHERE = {"instance": "c:9464"}
_TARGET = {**_WHERE, "job": "introspan"}
_RISES = "0+0x5 1+1x10 11+0x30"
"""From the sixth minute to the sixteenth."""


def _of(name: str, more: str = "") -> str:
    return f"introspan_{name}{{{_AT}{more}}}"


def _full(share: float) -> str:
    return f"0+0x5 {share * 1000:.0f}+0x20 0+0x20"


_LAG, _LIMIT = _of("collector_lag_bytes"), {_of("collector_lag_limit_bytes"): "1000+0x60"}
_LAG_SECONDS = _of("collector_lag_seconds")
_WRITE_ERRORS = _of("collector_log_write_errors_total")
_REFUSED = _of("collector_refused_batches_total", ',reason="memory"')
_DROPPED = _of("collector_dropped_batches_total", ',reason="undecodable"')
_FAILURES = _of("collector_failures_total", ',operation="checkpoint"')
_WAITING = _of("notify_waiting", ',target="a:9093"')

_THERE = (
    Case("IntrospanWatchdog", "whatever is", {}, {"0m": [_INFO], "30m": [_INFO]}),
    Case(
        "IntrospanCollectorDown",
        "while it does not answer",
        {_UP: "1+0x5 0+0x10 1+0x10"},
        {"8m": [{**_CRITICAL, **_TARGET}]},
        ["7m", "20m"],
    ),
    Case(
        "IntrospanCollectorDown",
        "not while it restarts",
        {_UP: "1+0x5 0 1+0x10"},
        quiet=["6m", "7m", "9m"],
    ),
    Case(
        "IntrospanCollectorAbsent",
        "until there is one",
        {_UP: "_x10 1+0x10"},
        {"5m": [{**_CRITICAL, "job": "introspan"}]},
        ["4m", "14m"],
    ),
    Case("IntrospanCollectorAbsent", "not when it is down", {_UP: "0+0x20"}, quiet=["15m"]),
)

_LOG = (
    Case(
        "IntrospanCollectorBehind",
        "by more than a minute for five",
        {_LAG_SECONDS: "0+0x5 120+0x10 0+0x10"},
        {"11m": [{**_WARNING, **_TARGET}]},
        ["10m", "20m"],
    ),
    Case("IntrospanCollectorBehind", "not by seconds", {_LAG_SECONDS: "20+0x30"}, quiet=["20m"]),
    Case(
        "IntrospanLogFilling",
        "beyond half",
        {_LAG: _full(0.6), **_LIMIT},
        {"11m": [{**_WARNING, **_TARGET}]},
        ["10m", "40m"],
    ),
    Case("IntrospanLogFilling", "not below", {_LAG: _full(0.4), **_LIMIT}, quiet=["15m"]),
    Case(
        "IntrospanLogFull",
        "when batches are refused for it",
        {_LAG: _full(0.99), **_LIMIT},
        {"8m": [{**_CRITICAL, **_TARGET}]},
        ["7m", "40m"],
    ),
    Case("IntrospanLogFull", "not while there is room", {_LAG: _full(0.9), **_LIMIT}, quiet=["15m"]),
    Case(
        "IntrospanLogNotWritten",
        "while writes fail",
        {_WRITE_ERRORS: _RISES},
        {"7m": [{**_CRITICAL, **_TARGET}]},
        ["6m", "30m"],
    ),
    Case("IntrospanLogNotWritten", "not for what failed before", {_WRITE_ERRORS: "7+0x30"}, quiet=["20m"]),
)

_WORK = (
    Case(
        "IntrospanBatchesRefused",
        "for five minutes",
        {_REFUSED: _RISES},
        {"11m": [{**_WARNING, **_WHERE, "reason": "memory"}]},
        ["10m", "35m"],
    ),
    Case("IntrospanBatchesRefused", "not once", {_REFUSED: "4+0x5 5+0x30"}, quiet=["10m", "20m"]),
    Case(
        "IntrospanBatchesLost",
        "the first that ever was",
        {_DROPPED: "_x5 1+0x40"},
        {"6m": [{**_WARNING, **_WHERE}]},
        ["5m", "30m"],
    ),
    *(
        Case(
            "IntrospanBatchesLost",
            f"by {name}",
            {_of(f"{name}_total"): _RISES},
            {"7m": [{**_WARNING, **_WHERE}]},
            ["6m", "40m"],
        )
        for name in (
            "collector_log_expired_bytes",
            "collector_log_corrupt_bytes",
            "collector_archive_lost_segments",
        )
    ),
    Case(
        "IntrospanArchiveDamaged",
        "until the file is away",
        {_of("collector_archive_unreadable_files"): "0+0x5 1+0x10 0+0x30"},
        {"11m": [{**_WARNING, **_TARGET}]},
        ["10m", "17m"],
    ),
    Case(
        "IntrospanArchiveDamaged",
        "not where all can be read",
        {_of("collector_archive_unreadable_files"): "0+0x60"},
        quiet=["30m"],
    ),
    Case("IntrospanBatchesLost", "not for what was lost before", {_DROPPED: "3+0x60"}, quiet=["30m"]),
    Case(
        "IntrospanCollectorFailing",
        "at saving, for five minutes",
        {_FAILURES: _RISES},
        {"11m": [{**_WARNING, **_WHERE, "operation": "checkpoint"}]},
        ["10m", "40m"],
    ),
    Case(
        "IntrospanCollectorFailing",
        "at the archive",
        {_of("collector_archive_write_errors_total"): _RISES},
        {"11m": [{**_WARNING, **_WHERE, "operation": "archive_write"}]},
        ["10m"],
    ),
    Case(
        "IntrospanCollectorFailing",
        "not for what failed before",
        {_FAILURES: "3+0x60", _of("collector_archive_write_errors_total"): "3+0x60"},
        quiet=["30m"],
    ),
    Case(
        "IntrospanSeriesLimit",
        "while values overflow",
        {
            _of("collector_overflow_values_total"): "0+10x40 400+0x40",
            _of("collector_hidden_workers"): "0+0x80",
        },
        {"16m": [{**_WARNING, **_TARGET}]},
        ["15m", "75m"],
    ),
    Case(
        "IntrospanSeriesLimit",
        "while workers are hidden",
        {_of("collector_hidden_workers"): "2+0x30 0+0x30"},
        {"15m": [{**_WARNING, **_TARGET}]},
        ["14m", "45m"],
    ),
    Case(
        "IntrospanSeriesLimit",
        "not below the limit",
        {_of("collector_overflow_values_total"): "9+0x60", _of("collector_hidden_workers"): "0+0x60"},
        quiet=["40m"],
    ),
    *(
        Case(
            "IntrospanDetectionLimited",
            f"by {name}",
            {_of(f"detect_{name}_total"): "0+1x60 60+0x120"},
            {"16m": [{**_WARNING, **_TARGET}]},
            ["15m", "150m"],
        )
        for name in ("unwatched_requests", "refused_findings", "dropped_values")
    ),
    Case(
        "IntrospanDetectionLimited",
        "not for what was before",
        {_of("detect_dropped_values_total"): "5+0x60"},
        quiet=["40m"],
    ),
    Case(
        "IntrospanNotNotifying",
        "while alerts wait",
        {_WAITING: "0+0x5 2+0x20 0+0x20"},
        {"16m": [{**_WARNING, **_TARGET, "target": "a:9093"}]},
        ["15m", "35m"],
    ),
    Case(
        "IntrospanNotNotifying",
        "not while they go out",
        {_WAITING: "0 1 0 1 0 1 0 1 0 1 0 1 0"},
        quiet=["12m"],
    ),
)

CASES = (*_THERE, *_LOG, *_WORK)
