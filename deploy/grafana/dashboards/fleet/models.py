"""What is wrong, and with which model? One table."""

from deploy.grafana.expressions import REFERENCE, alarms, evidence, reference, silence
from deploy.grafana.layout import Section
from deploy.grafana.links import INTERNALS, REQUESTS, of_row
from deploy.grafana.look import BAD, NOTE
from deploy.grafana.panels import Face
from deploy.grafana.queries import most, of, rate, total
from deploy.grafana.tables import Column, models
from deploy.grafana.thresholds import CANARY_ABOVE, PAGE_FLOORS, QUIET_SECONDS, SILENT_SECONDS
from deploy.grafana.variables import MODELS

SECTION = Section(
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
                Column("Pages", total("model", alarms("critical", MODELS)), above=((1, BAD),)),
                Column("Tickets", total("model", alarms("warning", MODELS)), above=((1, NOTE),)),
                Column(
                    "Evidence for a page",
                    most("model", evidence("page", MODELS)),
                    above=((-1, NOTE), (0, BAD)),
                ),
                Column(
                    "Canary, floors",
                    most("model", of("introspan_canary_distance", MODELS)),
                    above=CANARY_ABOVE,
                ),
                Column("Reference", reference("model", MODELS), mappings=REFERENCE),
                Column(
                    "Replicas",
                    f"count by (model) (count by (model, replica) ({of('introspan_segments_total', MODELS)}))",
                ),
                Column(
                    "Segments a second",
                    # Workers that share a model send the same segments.
                    total("model", most("model, replica, kind", rate("introspan_segments_total", MODELS))),
                    "ops",
                ),
                Column(
                    "Longest silence",
                    most("model", silence(MODELS)),
                    "s",
                    ((QUIET_SECONDS, NOTE), (SILENT_SECONDS, BAD)),
                ),
            ],
            [of_row(INTERNALS, "Inside ${__value.text}"), of_row(REQUESTS, "Requests of ${__value.text}")],
        )
    ],
)
