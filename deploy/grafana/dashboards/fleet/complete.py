"""Is the picture complete? Who is heard from, what is compared with what, and what is left out."""

from deploy.grafana.expressions import REFERENCE, reference, silence, warm_up
from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, FINE, NOTE, bounds
from deploy.grafana.panels import Face, bars, lines, progress, states
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.thresholds import QUIET_SECONDS, SILENT_SECONDS
from deploy.grafana.variables import MODELS

SECTION = Section(
    "Is the picture complete?",
    [
        states(
            Face(
                "Time since each replica was heard from",
                f"Blue: within {QUIET_SECONDS:g} s; orange: within {SILENT_SECONDS:g} s; red: longer. Bad: red on a "
                "replica that serves, or bars that end: it is gone, restarted under another name, or capture is off.",
                "s",
                none="no replica was ever heard from",
            ),
            Query(f"max by (model, replica) ({silence(MODELS)})", "{{model}} {{replica}}"),
            above=bounds((QUIET_SECONDS, NOTE), (SILENT_SECONDS, BAD)),
        ),
        states(
            Face(
                "Reference",
                "What each model is compared with. Collecting: traffic is compared with nothing yet, only canaries "
                "and the sampler's exact tests watch. Provisional: tickets only. Bad: back to collecting without "
                "a deploy.",
                "none",
                none="nothing watched yet",
            ),
            Query(reference("model, adapter", MODELS), "{{model}} {{adapter}}"),
            mappings=REFERENCE,
        ),
        progress(
            Face(
                "Warm-up: requests towards the next reference",
                "Clusters of healthy requests collected, of those that the next state takes. Bad: stands still while "
                "there is traffic: an incident or a deviating canary holds it up.",
                "percentunit",
                none="every reference is frozen",
            ),
            Query(warm_up("clusters", MODELS), "{{model}} {{adapter}}", instant=True),
            above=bounds((1, FINE), below=NOTE),
        ),
        lines(
            Face(
                "Segments received",
                "Observations a second: prompts and stretches of generated tokens. Bad: a fall that requests do not "
                "explain, or prompts without decoded ones.",
                "ops",
                none="no traffic",
            ),
            # Workers that share a model send the same segments, each with a part of their values.
            Query(
                total("model, kind", most("model, replica, kind", rate("introspan_segments_total", MODELS))),
                "{{model}} {{kind}}",
            ),
        ).min(0),
        lines(
            Face(
                "Share of requests measured",
                "Of all requests, how many are measured: fewer where a worker keeps to its budget or the collector "
                "brakes it. Bad: near 0, because alarms then need many more requests.",
                "percentunit",
                none="no worker has reported",
            ),
            Query(
                f"min by (model, replica) ({of('introspan_sdk_sampling_probability_ratio', MODELS)})",
                "{{model}} {{replica}}",
            ),
        )
        .min(0)
        .max(1),
        bars(
            Face(
                "Segments dropped in the workers",
                "Dropped before they were sent, by reason. Bad: queue_full (the collector is away or slow) "
                "or any that lasts.",
                "ops",
                none="none",
            ),
            Query(
                total("model, reason", rate("introspan_sdk_dropped_segments_total", MODELS)),
                "{{model}}: {{reason}}",
            ),
        ),
    ],
)
