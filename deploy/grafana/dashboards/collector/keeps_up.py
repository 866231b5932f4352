"""Does it keep up? How far behind the consumers are, and what they cost."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, BLUE, NOTE, bounds
from deploy.grafana.panels import Face, bars, lines
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.variables import INSTANCES

SECTION = Section(
    "Does it keep up?",
    (
        lines(
            Face(
                "Age of what is processed over time",
                "How old the batch is that consumers are at. Bad: a slope: more comes than is processed. A tooth "
                "after a restart is the replay.",
                "s",
                width=8,
            ),
            Query(most("instance", of("introspan_collector_lag_seconds", INSTANCES)), "{{instance}}"),
            above=bounds((10, NOTE), (60, BAD)),
        ).min(0),
        lines(
            Face(
                "Unread in the log, and where batches are refused",
                "Bytes in the log that consumers have not read, and the limit beyond which batches are refused. Bad: "
                "the two meet.",
                "bytes",
                width=8,
            ),
            Query(most("", of("introspan_collector_lag_bytes", INSTANCES)), "unread"),
            Query(f"min({of('introspan_collector_lag_limit_bytes', INSTANCES)})", "limit"),
            Query(most("", of("introspan_collector_pending_bytes", INSTANCES)), "not yet in the log"),
            colours={"unread": BLUE, "limit": BAD, "not yet in the log": NOTE},
        ).min(0),
        lines(
            Face(
                "Processor time of the consumers",
                "Seconds a second for what was read: 1 is a whole core. Bad: near 1 in sum; they share one thread.",
                "percentunit",
                width=8,
            ),
            Query(
                total("consumer", rate("introspan_collector_consumer_cpu_seconds_total", INSTANCES)),
                "{{consumer}}",
            ),
            colours={"aggregate": BLUE, "archive": NOTE, "detect": BAD},
        ).min(0),
        lines(
            Face(
                "Batches processed",
                "Batches a second that consumers were handed. Bad: 0 while batches are accepted.",
                "ops",
                width=8,
            ),
            Query(
                total("instance", rate("introspan_collector_processed_batches_total", INSTANCES)),
                "{{instance}}",
            ),
        ).min(0),
        lines(
            Face(
                "Age of the saved state",
                "Time since the aggregates were last saved. Bad: longer than a minute: a crash then replays as much.",
                "s",
                width=8,
            ),
            Query(
                most("instance", of("introspan_collector_checkpoint_age_seconds", INSTANCES)), "{{instance}}"
            ),
            above=bounds((60, NOTE), (600, BAD)),
        ).min(0),
        bars(
            Face(
                "Failures that are tried again",
                "Reading the log, saving, upkeep: nothing is lost by them. Bad: any that lasts: the disk is full or "
                "refuses.",
                "ops",
                none="none",
                width=8,
            ),
            Query(total("operation", rate("introspan_collector_failures_total", INSTANCES)), "{{operation}}"),
        ),
    ),
)
