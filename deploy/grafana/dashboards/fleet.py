"""The dashboard that is opened first: is anything wrong, with which model, since when, and is the picture complete?"""

from deploy.grafana.layout import Page, Section
from deploy.grafana.links import FLEET, INTERNALS, REQUESTS, of_row, of_series
from deploy.grafana.look import BAD, FINE, NOTE, UNKNOWN, bounds, words
from deploy.grafana.panels import Face, bars, lines, number, progress, states, stepped
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.tables import Column, models
from deploy.grafana.thresholds import (
    CANARY,
    CANARY_ABOVE,
    EVIDENCE,
    PAGE_FLOORS,
    QUIET_SECONDS,
    SILENT_SECONDS,
)
from deploy.grafana.variables import MODELS, datasource
from deploy.grafana.variables import models as all_models

_AGE = f"time() - {of('introspan_sdk_last_seen_timestamp_seconds', MODELS)}"
_DISTANCE = of("introspan_canary_distance", MODELS)
_REFERENCE = (
    f"min by ({{by}}) ({of('introspan_reference_state', MODELS, 'state="provisional"')}"
    f" + ignoring(state) 2 * {of('introspan_reference_state', MODELS, 'state="frozen"')})"
)
_STATES = words({0: ("collecting", UNKNOWN), 1: ("provisional", NOTE), 2: ("frozen", FINE)})
_INCIDENT = words({0: ("quiet", FINE), 1: ("ticket", NOTE), 2: ("page", BAD), 3: ("page and ticket", BAD)})
_TO_INTERNALS = of_series(INTERNALS, "Inside ${__field.labels.model}", "model")
_TO_REQUESTS = of_series(REQUESTS, "Requests of ${__field.labels.model}", "model")


def _alarms(severity: str) -> str:
    return of("introspan_alarm_active", MODELS, f'severity="{severity}"')


_WRONG = Section(
    "Is anything wrong?",
    [
        number(
            Face(
                "Pages",
                "Incidents of which somebody is woken: at most one false one is expected in 30 days. Bad: any. Go on "
                "to the row below, which names the model.",
                "none",
                none="nothing watched yet",
                width=4,
                height=4,
            ),
            Query(total("", _alarms("critical")), instant=True),
            bounds((1, BAD)),
        ),
        number(
            Face(
                "Tickets",
                "Incidents to look at in working hours: at most one false one is expected in a day. Bad: some that "
                "stay, or several models at once.",
                "none",
                none="nothing watched yet",
                width=4,
                height=4,
            ),
            Query(total("", _alarms("warning")), instant=True),
            bounds((1, NOTE)),
        ),
        number(
            Face(
                "Replicas whose canary deviates",
                f"Replicas that answered known questions more than {PAGE_FLOORS:g} times further off than chance "
                "explains. Bad: any; traffic cannot cause it. No canary: nobody asks, so a changed model is seen late.",
                "none",
                none="no canary",
                width=4,
                height=4,
            ),
            Query(total("", f"{_DISTANCE} > bool {PAGE_FLOORS:g}"), instant=True),
            bounds((1, BAD)),
        ),
        number(
            Face(
                "Workers not heard from",
                f"Workers that sent nothing for {QUIET_SECONDS:g} s. Bad: any that serve requests now; the collector "
                "says nothing about what it does not hear. One without requests is silent too.",
                "none",
                none="no workers",
                width=4,
                height=4,
            ),
            Query(total("", f"{_AGE} > bool {QUIET_SECONDS:g}"), instant=True),
            bounds((1, NOTE)),
        ),
        number(
            Face(
                "Signals switched off",
                "Signals that capture switched off in some worker, by its own checks or because the engine is not "
                "understood. Bad: some that were measured yesterday; see Coverage inside the model.",
                "none",
                none="none",
                width=4,
                height=4,
            ),
            Query(total("", of("introspan_capture_disabled", MODELS)), instant=True),
            bounds((1, NOTE)),
        ),
        number(
            Face(
                "Segments dropped",
                "Observations that were measured in the time shown and never arrived. Bad: many; statistics are of "
                "what is left. The dashboard of the collector says why.",
                "short",
                none="none",
                width=4,
                height=4,
            ),
            Query(
                total("", f"increase({of('introspan_sdk_dropped_segments_total', MODELS)}[$__range])"),
                instant=True,
            ),
            bounds((1, NOTE)),
        ),
    ],
)

_WHAT = Section(
    "What, and with which model?",
    [
        models(
            Face(
                "Models",
                "One row for each model; its name leads inside it. Bad: a page, evidence at 0 or above, a canary "
                f"beyond {PAGE_FLOORS:g} floors, or a worker that was not heard from.",
                "short",
                none="no models yet",
                width=24,
                height=8,
            ),
            [
                Column("Pages", total("model", _alarms("critical")), above=((1, BAD),)),
                Column("Tickets", total("model", _alarms("warning")), above=((1, NOTE),)),
                Column(
                    "Evidence for a page",
                    most("model", of("introspan_evidence_level", MODELS, 'copy="page"', 'detector="all"')),
                    above=((-1, NOTE), (0, BAD)),
                ),
                Column("Canary, floors", most("model", _DISTANCE), above=CANARY_ABOVE),
                Column("Reference", _REFERENCE.format(by="model"), mappings=_STATES),
                Column(
                    "Replicas",
                    f"count by (model) (count by (model, replica) ({of('introspan_segments_total', MODELS)}))",
                ),
                Column("Segments a second", total("model", rate("introspan_segments_total", MODELS)), "ops"),
                Column(
                    "Longest silence",
                    most("model", _AGE),
                    "s",
                    ((QUIET_SECONDS, NOTE), (SILENT_SECONDS, BAD)),
                ),
            ],
            [of_row(INTERNALS, "Inside ${__value.text}"), of_row(REQUESTS, "Requests of ${__value.text}")],
        )
    ],
)

_SINCE = Section(
    "Since when?",
    [
        states(
            Face(
                "Incidents",
                "When each model and adapter had an open incident. Bad: orange and red bars; where several models begin "
                "together, look for what they share (a deploy, a machine, the traffic).",
                "none",
                none="nothing watched yet",
            ),
            Query(
                f"{most('model, adapter', _alarms('warning'))} + 2 * {most('model, adapter', _alarms('critical'))}",
                "{{model}} {{adapter}}",
            ),
            mappings=_INCIDENT,
            links=[_TO_INTERNALS, _TO_REQUESTS],
        ),
        stepped(
            Face(
                "Incidents so far",
                "Incidents that began since the collector started, by what was seen. Bad: a step. Many small steps of "
                "one name are one cause that comes and goes.",
                "none",
                none="none yet",
            ),
            Query(
                total("model, alertname", of("introspan_incidents_total", MODELS)), "{{model}}: {{alertname}}"
            ),
        ),
        lines(
            Face(
                "Evidence for a page",
                "How close each model is to a page: decimal logarithm of evidence over threshold, all detectors "
                "together. Bad: at the dashed line, 0. It rises long before: -1 is a tenth of the way. -9 is none.",
                "none",
                none="nothing watched yet",
            ),
            Query(
                most(
                    "model, adapter", of("introspan_evidence_level", MODELS, 'copy="page"', 'detector="all"')
                ),
                "{{model}} {{adapter}}",
            ),
            above=EVIDENCE,
            links=[_TO_INTERNALS],
        ).axis_soft_max(1),
        lines(
            Face(
                "Canary",
                f"How far answers to known questions are off, in floors of what chance explains. Bad: above {PAGE_FLOORS:g} "
                "(a page after two in a row). Around 1 is rounding.",
                "none",
                none="no canary is asked",
            ),
            Query(most("model, replica", _DISTANCE), "{{model}} {{replica}}"),
            above=CANARY,
            links=[_TO_INTERNALS],
        )
        .min(0)
        .axis_soft_max(10),
    ],
)

_COMPLETE = Section(
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
            Query(f"max by (model, replica) ({_AGE})", "{{model}} {{replica}}"),
            above=bounds((QUIET_SECONDS, NOTE), (SILENT_SECONDS, BAD)),
        ),
        states(
            Face(
                "Reference",
                "What each model is compared with. Collecting: traffic is compared with nothing yet, only canaries and "
                "the sampler's exact tests watch. Provisional: tickets only. Bad: back to collecting without a deploy.",
                "none",
                none="nothing watched yet",
            ),
            Query(_REFERENCE.format(by="model, adapter"), "{{model}} {{adapter}}"),
            mappings=_STATES,
        ),
        progress(
            Face(
                "Warm-up: requests towards the next reference",
                "Clusters of healthy requests collected, of those that the next state takes. Bad: stands still while "
                "there is traffic: an incident or a deviating canary holds it up.",
                "percentunit",
                none="every reference is frozen",
            ),
            Query(
                f"min by (model, adapter) ({of('introspan_reference_clusters', MODELS)}"
                f" / {of('introspan_reference_needed_clusters', MODELS)})",
                "{{model}} {{adapter}}",
                instant=True,
            ),
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
            Query(total("model, kind", rate("introspan_segments_total", MODELS)), "{{model}} {{kind}}"),
        ).min(0),
        lines(
            Face(
                "Share of requests measured",
                "Of all requests, how many are measured: less than 1 where a worker keeps to its budget or the collector "
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

PAGE = Page(
    FLEET,
    "Introspan: fleet",
    "Every model that is watched: alarms, evidence, canaries, and whether everything is measured.",
    [datasource(), all_models()],
    MODELS,
    [_WRONG, _WHAT, _SINCE, _COMPLETE],
)
