"""Is anything wrong? Six numbers."""

from deploy.grafana.expressions import alarms, silence
from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, NOTE, bounds
from deploy.grafana.panels import Face, number
from deploy.grafana.queries import Query, of, total
from deploy.grafana.thresholds import PAGE_FLOORS, QUIET_SECONDS
from deploy.grafana.variables import MODELS

SECTION = Section(
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
            Query(total("", alarms("critical", MODELS)), instant=True),
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
            Query(total("", alarms("warning", MODELS)), instant=True),
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
            Query(
                total("", f"{of('introspan_canary_distance', MODELS)} > bool {PAGE_FLOORS:g}"), instant=True
            ),
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
            Query(total("", f"{silence(MODELS)} > bool {QUIET_SECONDS:g}"), instant=True),
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
