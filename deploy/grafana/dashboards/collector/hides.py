"""Is anything left out of what it shows? Series, detectors, canaries, notices."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, BLUE, GREEN, NOTE, PURPLE
from deploy.grafana.panels import Face, bars, lines
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.variables import INSTANCES

SECTION = Section(
    "Is anything left out of what it shows?",
    (
        lines(
            Face(
                "Series and their limit",
                "Time series of signals and workers. Bad: the two meet: further models, layers or adapters are "
                "counted together, without names.",
                "none",
                width=8,
            ),
            Query(most("", of("introspan_collector_series", INSTANCES)), "series"),
            Query(f"min({of('introspan_collector_series_limit', INSTANCES)})", "limit"),
            Query(total("", of("introspan_collector_hidden_workers", INSTANCES)), "workers not shown"),
            colours={"series": BLUE, "limit": BAD, "workers not shown": NOTE},
        ).min(0),
        bars(
            Face(
                "Values without a series, or infinite",
                "A second: values counted in an overflow series; infinite ones, which are in no statistic. Bad: any.",
                "ops",
                width=8,
            ),
            Query(total("", rate("introspan_collector_overflow_values_total", INSTANCES)), "overflow"),
            Query(total("", rate("introspan_collector_infinite_values_total", INSTANCES)), "infinite"),
            colours={"overflow": NOTE, "infinite": BAD},
        ),
        lines(
            Face(
                "What the detectors follow",
                "Streams of evidence, models and adapters that are watched, producers that are heard. Bad: a fall "
                "without a deploy.",
                "none",
                width=8,
            ),
            Query(total("", of("introspan_detect_streams", INSTANCES)), "streams"),
            Query(total("", of("introspan_detect_watched", INSTANCES)), "models and adapters"),
            Query(total("", of("introspan_collector_producers", INSTANCES)), "producers"),
            colours={"streams": BLUE, "models and adapters": GREEN, "producers": PURPLE},
        ).min(0),
        bars(
            Face(
                "Left out by the detectors",
                "A second: requests of models beyond the limit, values of evidence where too many callers waited, "
                "alarms beyond the most incidents. Bad: any that lasts.",
                "ops",
                width=8,
            ),
            Query(total("", rate("introspan_detect_unwatched_requests_total", INSTANCES)), "not watched"),
            Query(total("", rate("introspan_detect_dropped_values_total", INSTANCES)), "values dropped"),
            Query(
                total("", rate("introspan_detect_refused_findings_total", INSTANCES)), "alarms not recorded"
            ),
            colours={"not watched": NOTE, "values dropped": PURPLE, "alarms not recorded": BAD},
        ),
        lines(
            Face(
                "Canary rounds",
                "Rounds a second that endpoints answered in full, and that they did not. Bad: failures, or no rounds "
                "at all where endpoints are set.",
                "ops",
                none="the collector asks no canaries itself",
                width=8,
            ),
            Query(total("endpoint", rate("introspan_canary_rounds_total", INSTANCES)), "{{endpoint}}"),
            Query(
                total("endpoint", rate("introspan_canary_failures_total", INSTANCES)), "{{endpoint}} failed"
            ),
        ).min(0),
        lines(
            Face(
                "Time since the last canary",
                "By model and replica. Bad: many intervals: a fault of the model is then seen late.",
                "s",
                none="no canary is asked",
                width=8,
            ),
            Query(
                most("model, replica", of("introspan_canary_age_seconds", INSTANCES)), "{{model}} {{replica}}"
            ),
        ).min(0),
    ),
)
