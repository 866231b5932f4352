"""Is this model still itself? Six numbers about one model."""

from deploy.grafana.expressions import INCIDENT, NO_LAYER, REFERENCE, evidence, incident, reference, silence
from deploy.grafana.layout import Section
from deploy.grafana.links import REQUESTS, same
from deploy.grafana.look import BAD, FINE, NOTE, UNKNOWN, bounds
from deploy.grafana.panels import Face, number
from deploy.grafana.queries import Query, of
from deploy.grafana.thresholds import CANARY, EVIDENCE, PAGE_FLOORS, QUIET_SECONDS, SILENT_SECONDS
from deploy.grafana.variables import ADAPTERS, MODEL, REPLICAS

SECTION = Section(
    "Is this model still itself?",
    (
        number(
            Face(
                "Incident",
                "Whether an incident of this model is open or acknowledged. Bad: page. What it is about, its "
                "requests and its triage are in the alert and in the collector's page.",
                "none",
                none="not watched yet",
                width=4,
                height=4,
            ),
            Query(incident("", MODEL, ADAPTERS), instant=True),
            bounds(),
            INCIDENT,
            (same(REQUESTS, "Its requests"),),
        ),
        number(
            Face(
                "Evidence for a page",
                "Decimal logarithm of evidence over threshold, all detectors together. Bad: 0 and above is the page; "
                "-1 is a tenth of the way; -9 is none.",
                "none",
                none="not watched yet",
                width=4,
                height=4,
            ),
            Query(f"max({evidence('page', MODEL, ADAPTERS)})", instant=True),
            EVIDENCE,
        ),
        number(
            Face(
                "Canary, floors",
                f"How far the worst replica's last answers to known questions are off. Bad: above {PAGE_FLOORS:g}. "
                "Traffic cannot cause it: the weights, the engine or its files changed.",
                "none",
                none="no canary is asked",
                width=4,
                height=4,
            ),
            Query(f"max({of('introspan_canary_distance', MODEL)})", instant=True),
            CANARY,
        ),
        number(
            Face(
                "Deviation begins in layer",
                "The first layer in which a deviating canary differs, on the worst replica. Bad: a number. None: all "
                "is well, or the place cannot be told.",
                "none",
                none="no canary is asked",
                width=4,
                height=4,
            ),
            Query(f"max({of('introspan_canary_deviating_layer', MODEL)})", instant=True),
            bounds((0, BAD)),
            NO_LAYER,
        ),
        number(
            Face(
                "Reference",
                "What requests are compared with. Collecting: nothing yet, so the detectors of live traffic are "
                "silent. Bad: collecting long after the start: see Coverage.",
                "none",
                none="not watched yet",
                width=4,
                height=4,
            ),
            Query(reference("", MODEL, ADAPTERS), instant=True),
            bounds(below=UNKNOWN),
            REFERENCE,
        ),
        number(
            Face(
                "Longest silence",
                "Time since the quietest of its workers was heard from. Bad: minutes, while it serves.",
                "s",
                none="never heard from",
                width=4,
                height=4,
            ),
            Query(f"max({silence(MODEL, REPLICAS)})", instant=True),
            bounds((QUIET_SECONDS, NOTE), (SILENT_SECONDS, BAD), below=FINE),
        ),
    ),
)
