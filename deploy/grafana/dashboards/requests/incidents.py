"""Which incidents are there, and was anybody told? Both over time."""

from grafana_foundation_sdk.models import dashboard

from deploy.grafana.expressions import INCIDENT, TOLD_OF, incident
from deploy.grafana.layout import Section
from deploy.grafana.links import INTERNALS, of_series
from deploy.grafana.look import BAD, NOTE, fixed
from deploy.grafana.panels import Face, bars, lines, states, stepped
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.variables import ADAPTERS, MODELS

INCIDENTS = Section(
    "Which incidents are there?",
    (
        states(
            Face(
                "Incidents",
                "When an incident was open. Bad: orange and red. Its alert names layer, replicas, requests and "
                "traces; the collector's page and `introspan alarms show` say why.",
                "none",
                none="nothing watched yet",
                width=8,
            ),
            Query(incident("model, adapter", MODELS, ADAPTERS), "{{model}} {{adapter}}"),
            mappings=INCIDENT,
            links=(of_series(INTERNALS, "Inside ${__field.labels.model}", "model"),),
        ),
        states(
            Face(
                "What people are told of",
                "Incidents that last and of which people are told, by the name of their alert; in an announced deploy "
                "they are not, unless it is outlasted. Bad: a bar; docs/runbook.md has a heading for its name.",
                "none",
                none="nothing: all is quiet, or a deploy is announced",
                width=8,
            ),
            Query(
                most("model, adapter, alarm", of("introspan_incident_notified", MODELS, ADAPTERS)),
                "{{model}} {{adapter}}: {{alarm}}",
            ),
            mappings=TOLD_OF,
            links=(of_series(INTERNALS, "Inside ${__field.labels.model}", "model"),),
        ),
        stepped(
            Face(
                "What was seen",
                "Incidents that began since the collector started, by the name of their alert; docs/runbook.md has a "
                "heading for each. Bad: a step.",
                "none",
                none="none yet",
                width=8,
            ),
            Query(
                total("model, alertname", of("introspan_incidents_total", MODELS, ADAPTERS)),
                "{{model}}: {{alertname}}",
            ),
            links=(of_series(INTERNALS, "Inside ${__field.labels.model}", "model"),),
        ),
    ),
)

TOLD = Section(
    "Was anybody told?",
    (
        lines(
            Face(
                "Alerts that a target does not know",
                "Alerts whose newest state a target was not told of yet. Bad: above 0 for longer than a minute: "
                "nobody may know of an incident.",
                "none",
                none="no targets: the collector tells nobody",
                width=8,
            ),
            Query(total("target", of("introspan_notify_waiting")), "{{target}}"),
        )
        .min(0)
        .decimals(0),
        stepped(
            Face(
                "Notices taken",
                "Notices that a target took, since the collector started. Bad: no step after a step of what was seen.",
                "none",
                none="none yet",
                width=8,
            ),
            Query(total("target", of("introspan_notify_delivered_total")), "{{target}}"),
        ),
        bars(
            Face(
                "Calls that failed, notices given up",
                "Calls to a target that failed, a second, by reason; and notices given up. Bad: any given up.",
                "ops",
                none="none",
                width=8,
            ),
            Query(total("target, reason", rate("introspan_notify_failed_total")), "{{target}}: {{reason}}"),
            Query(total("reason", rate("introspan_notify_dropped_total")), "given up: {{reason}}"),
            colour=NOTE,
        ).override_by_regexp("/^given up/", [dashboard.DynamicConfigValue("color", fixed(BAD).build())]),
    ),
)
