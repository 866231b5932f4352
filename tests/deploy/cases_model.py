"""When alerts about a model and about what it is compared with fire, do not fire, and end."""

from tests.deploy.rules import Case

_AT = 'instance="c:9464",job="introspan"'
_MODEL = f'{_AT},model="m"'
_REPLICA = f'{_MODEL},replica="r0"'
_OF_MODEL = {"instance": "c:9464", "model": "m"}
_OF_REPLICA = {**_OF_MODEL, "replica": "r0"}
_NO_INCIDENT = {f'introspan_alarm_active{{{_MODEL},severity="critical"}}': "0+0x400"}
_INCIDENT = {f'introspan_alarm_active{{{_MODEL},severity="critical"}}': "1+0x400"}
_TRAFFIC = {f'introspan_segments_total{{{_REPLICA},kind="decoded",worker="tp0-pp0-dp0"}}': "0+20x400"}
# Of eight workers that share a model, each of which sends every segment.
_LITTLE = {
    f'introspan_segments_total{{{_REPLICA},kind="decoded",worker="tp{rank}-pp0-dp0"}}': "0+1x400"
    for rank in range(8)
}
_NOTIFIES = f"introspan_notify_alertmanager_informed{{{_AT}}}"
_PAGED = f'introspan_incident_notified{{{_MODEL},alarm="IntrospanOutputNotFinite",severity="critical"}}'
_TICKET = f'introspan_incident_notified{{{_MODEL},alarm="IntrospanTrafficShifted",severity="warning"}}'
_DISTANCE = f"introspan_canary_distance{{{_REPLICA}}}"
_AGE = f"introspan_canary_age_seconds{{{_REPLICA}}}"
_SEEN = f'introspan_sdk_last_seen_timestamp_seconds{{{_REPLICA},worker="tp0-pp0-dp0"}}'
_FAILURES = f'introspan_canary_failures_total{{{_AT},endpoint="v:8000"}}'
_ROUNDS = f'introspan_canary_rounds_total{{{_AT},endpoint="v:8000"}}'
_OUTPUT = f"introspan_output_nonfinite_events_total{{{_REPLICA}}}"
_RESIDUAL = f'introspan_residual_nonfinite_events_total{{{_REPLICA},layer="3"}}'
_REPEATED = f"introspan_output_repetition_segments_total{{{_REPLICA}}}"
_DRIFT = f'introspan_evidence_level{{{_MODEL},copy="ticket",detector="drift"}}'
_NONE = f'introspan_reference_state{{{_MODEL},state="none"}}'
_PROVISIONAL = f'introspan_reference_state{{{_MODEL},state="provisional"}}'
_PROMPTS = f'introspan_segments_total{{{_REPLICA},kind="prompt",worker="tp0-pp0-dp0"}}'
_POET = 'adapter="poet"'

_CRITICAL, _WARNING, _INFO = ({"severity": name} for name in ("critical", "warning", "info"))

_INCIDENTS = (
    Case(
        "IntrospanCollectorNotifies",
        "while an Alertmanager of the collector knows of every alert",
        {_NOTIFIES: "1+0x10 0+0x20"},
        {"2m": [{**_INFO, "instance": "c:9464", "job": "introspan"}]},
        ["20m"],
    ),
    Case(
        "IntrospanCollectorNotifies",
        "goes on while a new incident is on its way",
        {_NOTIFIES: "1+0x5 0 0 1+0x10"},
        {"6m": [{**_INFO, "instance": "c:9464", "job": "introspan"}]},
    ),
    Case("IntrospanCollectorNotifies", "not where none can be told", {_NOTIFIES: "0+0x20"}, quiet=["10m"]),
    Case("IntrospanCollectorNotifies", "not where none is configured", _NO_INCIDENT, quiet=["10m"]),
    Case(
        "IntrospanIncident",
        "pages of an incident that pages",
        {_PAGED: "_x3 1+0x10 stale"},
        {"4m": [{**_CRITICAL, **_OF_MODEL, "alarm": "IntrospanOutputNotFinite"}]},
        ["3m", "18m"],
    ),
    Case(
        "IntrospanIncident",
        "writes a ticket of an incident that does",
        {_TICKET: "_x3 1+0x10 stale"},
        {"4m": [{**_WARNING, **_OF_MODEL, "alarm": "IntrospanTrafficShifted"}]},
        ["3m", "18m"],
    ),
    Case(
        "IntrospanIncident",
        "does not end with one scrape that fails",
        {_PAGED: "1+0x5 stale 1+0x10"},
        {"6m": [{**_CRITICAL, **_OF_MODEL, "alarm": "IntrospanOutputNotFinite"}]},
    ),
    Case("IntrospanIncident", "says nothing of one in an announced deploy", _INCIDENT, quiet=["10m"]),
)

_CANARIES = (
    Case(
        "IntrospanCanaryFarOff",
        "a deviation without an incident",
        {_DISTANCE: "5+0x5 20+0x20 5+0x20", _AGE: "30+0x50", **_NO_INCIDENT},
        {"11m": [{**_WARNING, **_OF_REPLICA}]},
        ["10m", "35m"],
    ),
    Case(
        "IntrospanCanaryFarOff",
        "not beside an incident",
        {_DISTANCE: "20+0x50", _AGE: "30+0x50", **_INCIDENT},
        quiet=["30m"],
    ),
    Case(
        "IntrospanCanaryFarOff",
        "not of a round long ago",
        {_DISTANCE: "20+0x50", _AGE: "650+0x50", **_NO_INCIDENT},
        quiet=["30m"],
    ),
    Case(
        "IntrospanCanarySilent",
        "no round of a replica that is up",
        {_AGE: "0+60x30 30+0x20", _SEEN: "0+60x60"},
        {"21m": [{**_WARNING, **_OF_REPLICA}]},
        ["20m", "45m"],
    ),
    Case(
        "IntrospanCanarySilent",
        "not of a replica that was taken away",
        {_AGE: "0+60x60", _SEEN: "0+60x5 300+0x50"},
        quiet=["25m", "50m"],
    ),
    Case(
        "IntrospanCanaryFails",
        "no round in full",
        {_FAILURES: "0+1x60", _ROUNDS: "5+0x30 6+1x30"},
        {"6m": [{**_WARNING, "instance": "c:9464", "endpoint": "v:8000"}]},
        ["5m", "55m"],
    ),
    Case(
        "IntrospanCanaryFails",
        "not where nobody asks",
        {_FAILURES: "3+0x60", _ROUNDS: "3+0x60"},
        quiet=["40m"],
    ),
    Case(
        "IntrospanCanaryFails",
        "not where only some rounds fail",
        {_FAILURES: "0+1x60", _ROUNDS: "0+1x60"},
        quiet=["40m"],
    ),
)

_VALUES = (
    Case(
        "IntrospanNotFinite",
        "logits without an incident",
        {_OUTPUT: "0+0x5 3+3x10 33+0x20", **_NO_INCIDENT},
        {"8m": [{**_CRITICAL, **_OF_REPLICA}]},
        ["7m", "30m"],
    ),
    Case(
        "IntrospanNotFinite",
        "a residual stream without an incident",
        {_RESIDUAL: "0+0x5 3+3x10 33+0x20", **_NO_INCIDENT},
        {"8m": [{**_CRITICAL, **_OF_REPLICA}]},
        ["7m"],
    ),
    Case(
        "IntrospanNotFinite",
        "not for what was before",
        {_OUTPUT: "9+0x40", _RESIDUAL: "9+0x40", **_NO_INCIDENT},
        quiet=["20m"],
    ),
    Case("IntrospanNotFinite", "not beside an incident", {_OUTPUT: "0+3x40", **_INCIDENT}, quiet=["20m"]),
    Case(
        "IntrospanAnswersRepeat",
        "a share that has risen",
        {_REPEATED: "0+0.4x120 54+6x60 414.4+0.4x120", **_TRAFFIC, **_NO_INCIDENT},
        {"139m": [{**_WARNING, **_OF_MODEL}]},
        ["138m", "260m"],
    ),
    Case(
        "IntrospanAnswersRepeat",
        "most of what is generated, from the start",
        {_REPEATED: "0+15x120", **_TRAFFIC, **_NO_INCIDENT},
        {"20m": [{**_WARNING, **_OF_MODEL}]},
        ["19m"],
    ),
    Case(
        "IntrospanAnswersRepeat",
        "not where it was always so",
        {_REPEATED: "0+6x400", **_TRAFFIC, **_NO_INCIDENT},
        quiet=["50m", "100m", "150m"],
    ),
    Case(
        "IntrospanAnswersRepeat",
        "not of few answers",
        {_REPEATED: "0+1x400", **_LITTLE, **_NO_INCIDENT},
        quiet=["100m"],
    ),
    Case(
        "IntrospanAnswersRepeat",
        "not beside an incident",
        {_REPEATED: "0+15x400", **_TRAFFIC, **_INCIDENT},
        quiet=["100m"],
    ),
    Case(
        "IntrospanDriftBuilding",
        "evidence near the threshold for half an hour",
        {_DRIFT: "-1.5+0x40 -0.5+0x60 -1.5+0x60", **_TRAFFIC, **_NO_INCIDENT},
        {"71m": [{**_INFO, **_OF_MODEL, "detector": "drift"}]},
        ["70m", "140m"],
    ),
    Case(
        "IntrospanDriftBuilding",
        "not of few answers",
        {_DRIFT: "-0.5+0x200", **_LITTLE, **_NO_INCIDENT},
        quiet=["150m"],
    ),
    Case(
        "IntrospanDriftBuilding",
        "not beside an incident",
        {_DRIFT: "0.5+0x200", **_TRAFFIC, **_INCIDENT},
        quiet=["150m"],
    ),
)

_REFERENCES = (
    Case(
        "IntrospanReferenceMissing",
        "traffic, and none for long",
        {_NONE: "1+0x720 0+0x240", _PROMPTS: "0+20x960"},
        {"21h": [{**_WARNING, **_OF_MODEL}]},
        ["20h", "62h"],
        "5m",
    ),
    Case(
        "IntrospanReferenceMissing",
        "an adapter with requests enough",
        {
            _NONE.replace("state=", f"{_POET},state="): "1+0x400",
            f"introspan_reference_clusters{{{_MODEL},{_POET}}}": "600+0x400",
            f"introspan_reference_needed_clusters{{{_MODEL},{_POET}}}": "500+0x400",
        },
        {"20h": [{**_WARNING, **_OF_MODEL, "adapter": "poet"}]},
        interval="5m",
    ),
    Case(
        "IntrospanReferenceMissing",
        "not where few ask",
        {
            _NONE: "1+0x720",
            _PROMPTS: "0+1x720",
            _NONE.replace("state=", f"{_POET},state="): "1+0x720",
            f"introspan_reference_clusters{{{_MODEL},{_POET}}}": "40+0x720",
            f"introspan_reference_needed_clusters{{{_MODEL},{_POET}}}": "500+0x720",
        },
        quiet=["30h"],
        interval="5m",
    ),
    Case(
        "IntrospanReferenceWarmupLong",
        "provisional for more than three days",
        {_PROVISIONAL: "1+0x900 0+0x100"},
        {"72h": [{**_WARNING, **_OF_MODEL}]},
        ["71h", "78h"],
        "5m",
    ),
    Case(
        "IntrospanReferenceWarmupLong",
        "not when it is frozen after two",
        {_PROVISIONAL: "1+0x576 0+0x400"},
        quiet=["47h", "75h"],
        interval="5m",
    ),
)

CASES = (*_INCIDENTS, *_CANARIES, *_VALUES, *_REFERENCES)
