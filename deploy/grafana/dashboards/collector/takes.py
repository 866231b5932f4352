"""Does it take everything? What is accepted, refused and dropped."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, BLUE, FINE, NOTE, PURPLE, bounds
from deploy.grafana.panels import Face, bars, lines, number
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.thresholds import QUEUE_SECONDS
from deploy.grafana.variables import INSTANCES

NUMBERS = Section(
    "Is anything wrong?",
    (
        number(
            Face(
                "Collectors that answer",
                "Collectors that Prometheus reaches. Bad: fewer than there are; everything else here is then of the "
                "others.",
                "none",
                none="none answers",
                width=4,
                height=4,
            ),
            Query(f"count({of('introspan_collector_series_limit', INSTANCES)})", instant=True),
            bounds((1, FINE), below=BAD),
        ),
        number(
            Face(
                "Age of what is processed",
                "How old the batch is that consumers are at; 0 when they have read all. Bad: minutes and growing: "
                "alarms are late by as much.",
                "s",
                width=4,
                height=4,
            ),
            Query(f"max({of('introspan_collector_lag_seconds', INSTANCES)})", instant=True),
            bounds((10, NOTE), (60, BAD)),
        ),
        number(
            Face(
                "Refused in the time shown",
                "Batches answered with an error: producers come again where it says so, else the data is lost. Bad: "
                "any that lasts.",
                "none",
                none="none",
                width=4,
                height=4,
            ),
            Query(
                f"sum(increase({of('introspan_collector_refused_batches_total', INSTANCES)}[$__range]))",
                instant=True,
            ),
            bounds((1, NOTE)),
        ),
        number(
            Face(
                "Dropped in the time shown",
                "Batches that were acknowledged and then not processed. Bad: any; the log of the collector says why.",
                "none",
                none="none",
                width=4,
                height=4,
            ),
            Query(
                f"sum(increase({of('introspan_collector_dropped_batches_total', INSTANCES)}[$__range]))",
                instant=True,
            ),
            bounds((1, BAD)),
        ),
        number(
            Face(
                "Log, share of its limit",
                "How full the log is. Near 1 the oldest files go, as they should. Bad: near 1 while consumers are "
                "behind; see Damage and loss.",
                "percentunit",
                width=4,
                height=4,
            ),
            Query(
                f"max({of('introspan_collector_log_size_bytes', INSTANCES)}"
                f" / {of('introspan_collector_log_limit_bytes', INSTANCES)})",
                instant=True,
            ),
            bounds(),
        ),
        number(
            Face(
                "Series, share of the limit",
                "Time series that are exposed. Bad: 1: what is beyond is counted together in one overflow series.",
                "percentunit",
                width=4,
                height=4,
            ),
            Query(
                f"max({of('introspan_collector_series', INSTANCES)}"
                f" / {of('introspan_collector_series_limit', INSTANCES)})",
                instant=True,
            ),
            bounds((0.8, NOTE), (1, BAD)),
        ),
    ),
)

SECTION = Section(
    "Does it take everything?",
    (
        lines(
            Face(
                "Accepted",
                "Segments acknowledged a second. Bad: a fall that traffic does not explain.",
                "ops",
                width=8,
            ),
            Query(
                total("instance", rate("introspan_collector_accepted_segments_total", INSTANCES)),
                "{{instance}}",
            ),
        ).min(0),
        lines(
            Face(
                "Bytes accepted",
                "Bytes of acknowledged batches a second. Bad: at the disk's limit.",
                "Bps",
                width=8,
            ),
            Query(
                total("instance", rate("introspan_collector_accepted_bytes_total", INSTANCES)), "{{instance}}"
            ),
        ).min(0),
        bars(
            Face(
                "Refused, by reason",
                "Batches answered with an error, a second. Bad: malformed (a producer of another version), or "
                "overload that lasts.",
                "ops",
                none="none",
                width=8,
            ),
            Query(
                total("reason", rate("introspan_collector_refused_batches_total", INSTANCES)), "{{reason}}"
            ),
            colour=NOTE,
        ),
        bars(
            Face(
                "Dropped, by reason",
                "Batches that were acknowledged and then not processed, a second. Bad: any.",
                "ops",
                none="none",
                width=8,
            ),
            Query(
                total("reason", rate("introspan_collector_dropped_batches_total", INSTANCES)), "{{reason}}"
            ),
        ),
        bars(
            Face(
                "Dropped by the workers, by reason",
                "Segments that workers dropped before they were sent, a second. Bad: queue_full: this collector was "
                "away or slow.",
                "ops",
                none="none",
                width=8,
            ),
            Query(total("reason", rate("introspan_sdk_dropped_segments_total", INSTANCES)), "{{reason}}"),
            colour=NOTE,
        ),
        lines(
            Face(
                "Age of what workers send",
                "How old the oldest observation was that waited in a worker's queue when it last sent; dashed: what "
                "IntrospanQueueOld takes. Bad: a slope: this collector answers more slowly than workers measure.",
                "s",
                none="no worker has reported",
                width=8,
            ),
            Query(
                most("model, replica", of("introspan_sdk_queue_age_seconds", INSTANCES)),
                "{{model}} {{replica}}",
            ),
            above=bounds((QUEUE_SECONDS, NOTE)),
        ).min(0),
        lines(
            Face(
                "Odd batches",
                "Sent twice and counted once; clocks a day off; signals and kinds of segments that are not known. Bad: "
                "unknown columns: the SDK is newer than the collector. Some repeats after a restart are fine.",
                "ops",
                width=24,
            ),
            Query(total("", rate("introspan_collector_duplicate_batches_total", INSTANCES)), "sent twice"),
            Query(total("", rate("introspan_collector_rejected_segments_total", INSTANCES)), "unknown kind"),
            Query(total("", rate("introspan_collector_skewed_segments_total", INSTANCES)), "clock off"),
            Query(total("", rate("introspan_collector_unknown_columns_total", INSTANCES)), "unknown columns"),
            Query(
                total("", rate("introspan_collector_evicted_producers_total", INSTANCES)),
                "producers forgotten",
            ),
            colours={
                "sent twice": BLUE,
                "clock off": NOTE,
                "unknown columns": BAD,
                "producers forgotten": PURPLE,
            },
        ).min(0),
    ),
)
