"""Coverage: is enough measured to believe the rest? Warm-up, rows, and what is left out."""

from deploy.grafana.expressions import CANARY, REFERENCE, SWITCHED_OFF, canary, reference, warm_up
from deploy.grafana.layout import Section
from deploy.grafana.look import BLUE, NOTE
from deploy.grafana.panels import Face, bars, lines, states
from deploy.grafana.queries import Query, of, rate, total
from deploy.grafana.variables import ADAPTERS, MODEL, REPLICAS

_WHO = (MODEL, REPLICAS)

_WARM_UP = (
    states(
        Face(
            "Reference and its states",
            "Collecting, provisional (tickets only), frozen. Bad: back to collecting without a deploy: another "
            "fingerprint is served.",
            "none",
            none="not watched yet",
            width=6,
        ),
        Query(reference("model, adapter", MODEL, ADAPTERS), "{{model}} {{adapter}}"),
        mappings=REFERENCE,
    ),
    lines(
        Face(
            "Warm-up: share of what the next reference takes",
            "Requests (clusters of them) and time that were collected. Bad: a line that stands still while there is "
            "traffic: an incident or a deviating canary holds it up.",
            "percentunit",
            none="the reference is frozen, nothing is collected",
            width=6,
        ),
        Query(warm_up("clusters", MODEL, ADAPTERS), "requests {{adapter}}"),
        Query(warm_up("seconds", MODEL, ADAPTERS), "time {{adapter}}"),
    ).min(0),
    states(
        Face(
            "Canary",
            "Not asked, gathering its baseline, still, deviating, or silent: asked before and no more. Bad: "
            "deviating; silent: a fault of the model is then seen late.",
            "none",
            none="no canary is asked",
            width=6,
        ),
        Query(canary(MODEL), "{{model}}"),
        mappings=CANARY,
    ),
    lines(
        Face(
            "Canary rounds towards a baseline",
            "Rounds gathered for the next baseline; until it is there, canaries are compared with nothing. Bad: "
            "stands still: nobody asks, or rounds fail.",
            "none",
            none="no canary is asked",
            width=6,
        ),
        Query(f"max({of('introspan_canary_gathered_rounds', MODEL)})", "gathered"),
        colours={"gathered": BLUE},
    ).min(0),
)

_MEASURED = (
    lines(
        Face(
            "Rows measured",
            "Tokens measured a second. Bad: a fall that requests do not explain.",
            "ops",
            width=8,
        ),
        Query(total("replica", rate("introspan_sdk_measured_rows_total", *_WHO)), "{{replica}}"),
    ).min(0),
    lines(
        Face(
            "Share of requests measured",
            "Fewer than all where a worker keeps to its budget or the collector brakes it. Bad: near 0: alarms then "
            "take many more requests.",
            "percentunit",
            width=8,
        ),
        Query(f"min by (replica) ({of('introspan_sdk_sampling_probability_ratio', *_WHO)})", "{{replica}}"),
    )
    .min(0)
    .max(1),
    lines(
        Face(
            "Time spent in capture",
            "Share of the engine's own thread. Bad: more than a hundredth of it, or a step after an upgrade.",
            "percentunit",
            width=8,
        ),
        Query(total("replica", rate("introspan_capture_seconds_total", *_WHO)), "{{replica}}"),
    ).min(0),
)

_LEFT_OUT = (
    states(
        Face(
            "Signals switched off",
            "What capture switched off, and why: self_check_failed and probe_error are faults, others are limits of "
            "this engine. Bad: a bar that begins.",
            "none",
            none="none",
        ),
        Query(
            f"max by (replica, signal, reason) ({of('introspan_capture_disabled', *_WHO)})",
            "{{replica}} {{signal}}: {{reason}}",
        ),
        mappings=SWITCHED_OFF,
    ),
    bars(
        Face(
            "Left out by the workers",
            "A second: segments that did not arrive, requests and rows that were not measured, rows whose sampler is "
            "not reproduced or whose attention is over the budget, errors caught. Bad: errors, or drops that last.",
            "ops",
            none="nothing",
        ),
        Query(total("reason", rate("introspan_sdk_dropped_segments_total", *_WHO)), "segments: {{reason}}"),
        Query(total("reason", rate("introspan_sdk_dropped_requests_total", *_WHO)), "requests: {{reason}}"),
        Query(total("reason", rate("introspan_sdk_dropped_rows_total", *_WHO)), "rows: {{reason}}"),
        Query(total("", rate("introspan_sdk_sampler_skipped_rows_total", *_WHO)), "sampler not reproduced"),
        Query(total("", rate("introspan_sdk_attention_skipped_rows_total", *_WHO)), "attention over budget"),
        Query(total("", rate("introspan_sdk_probe_errors_total", *_WHO)), "errors"),
        colour=NOTE,
    ),
)

SECTION = Section("Coverage: is enough measured to believe this?", (*_WARM_UP, *_MEASURED, *_LEFT_OUT))
