"""Since when? Incidents, evidence and canaries over time."""

from deploy.grafana.expressions import INCIDENT, evidence, incident
from deploy.grafana.layout import Section
from deploy.grafana.links import INTERNALS, REQUESTS, of_series
from deploy.grafana.panels import Face, lines, states, stepped
from deploy.grafana.queries import Query, most, of, total
from deploy.grafana.thresholds import CANARY, EVIDENCE, PAGE_FLOORS
from deploy.grafana.variables import MODELS

_TO_INTERNALS = of_series(INTERNALS, "Inside ${__field.labels.model}", "model")
_TO_REQUESTS = of_series(REQUESTS, "Requests of ${__field.labels.model}", "model")

SECTION = Section(
    "Since when?",
    [
        states(
            Face(
                "Incidents",
                "When each model and adapter had an open incident. Bad: orange and red bars; where several begin "
                "together, look for what they share (a deploy, a machine, the traffic).",
                "none",
                none="nothing watched yet",
            ),
            Query(
                incident("model, adapter", MODELS),
                "{{model}} {{adapter}}",
            ),
            mappings=INCIDENT,
            links=[_TO_INTERNALS, _TO_REQUESTS],
        ),
        stepped(
            Face(
                "Incidents so far",
                "Incidents that began since the collector started, by what was seen. Bad: a step. Many small steps "
                "of one name are one cause that comes and goes.",
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
                most("model, adapter", evidence("page", MODELS)),
                "{{model}} {{adapter}}",
            ),
            above=EVIDENCE,
            links=[_TO_INTERNALS],
        ).axis_soft_max(1),
        lines(
            Face(
                "Canary",
                "How far answers to known questions are off, in floors of what chance explains. Bad: above "
                f"{PAGE_FLOORS:g} (a page after two in a row). Around 1 is rounding.",
                "none",
                none="no canary is asked",
            ),
            Query(most("model, replica", of("introspan_canary_distance", MODELS)), "{{model}} {{replica}}"),
            above=CANARY,
            links=[_TO_INTERNALS],
        )
        .min(0)
        .axis_soft_max(10),
    ],
)
