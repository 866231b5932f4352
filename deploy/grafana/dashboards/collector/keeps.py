"""Does it keep what it took? Log and archive on the disk."""

from deploy.grafana.layout import Section
from deploy.grafana.look import BAD, BLUE, GREEN, NOTE
from deploy.grafana.panels import Face, bars, lines
from deploy.grafana.queries import Query, most, of, rate, total
from deploy.grafana.variables import INSTANCES


def _mean(seconds: str, times: str) -> str:
    return f"{total('instance', rate(seconds, INSTANCES))} / {total('instance', rate(times, INSTANCES))}"


_DAMAGE = {
    "log: writes failed": "introspan_collector_log_write_errors_total",
    "log: corrupt bytes": "introspan_collector_log_corrupt_bytes_total",
    "log: torn bytes": "introspan_collector_log_torn_bytes_total",
    "log: expired unread": "introspan_collector_log_expired_bytes_total",
    "archive: writes failed": "introspan_collector_archive_write_errors_total",
    "archive: segments lost": "introspan_collector_archive_lost_segments_total",
}

SECTION = Section(
    "Does it keep what it took?",
    (
        lines(
            Face(
                "Time to reach the disk",
                "Mean time of one sync of the log, which an acknowledgement waits for. Bad: above 0.1 s: producers "
                "wait, their queues fill.",
                "s",
                none="no batches",
                width=8,
            ),
            Query(
                _mean("introspan_collector_log_sync_seconds_total", "introspan_collector_log_syncs_total"),
                "{{instance}}",
            ),
        ).min(0),
        lines(
            Face(
                "Log and its limit",
                "Bytes of the log, and where its oldest files go. Bad: at the limit with much unread.",
                "bytes",
                width=8,
            ),
            Query(most("", of("introspan_collector_log_size_bytes", INSTANCES)), "log"),
            Query(f"min({of('introspan_collector_log_limit_bytes', INSTANCES)})", "limit"),
            colours={"log": BLUE, "limit": BAD},
        ).min(0),
        lines(
            Face(
                "Archive",
                "Bytes of Parquet on the disk, and those that wait to be written. Bad: waiting ones that grow.",
                "bytes",
                width=8,
            ),
            Query(total("", of("introspan_collector_archive_size_bytes", INSTANCES)), "on the disk"),
            Query(total("", of("introspan_collector_archive_buffered_bytes", INSTANCES)), "waiting"),
            colours={"on the disk": BLUE, "waiting": NOTE},
        ).min(0),
        bars(
            Face(
                "Damage and loss",
                "A second: failed writes, bytes with a wrong checksum, bytes deleted before they were read, segments "
                "never archived. Bad: any, but torn bytes once after a crash.",
                "ops",
                none="none",
                width=8,
            ),
            *(Query(total("", rate(metric, INSTANCES)), name) for name, metric in _DAMAGE.items()),
        ),
        lines(
            Face(
                "Parquet written and deleted",
                "Bytes a second that were written, and that retention deleted. Bad: much more deleted than written: "
                "the limit is too small for the time that is wanted.",
                "Bps",
                width=8,
            ),
            Query(total("", rate("introspan_collector_archive_written_bytes_total", INSTANCES)), "written"),
            Query(total("", rate("introspan_collector_archive_deleted_bytes_total", INSTANCES)), "deleted"),
            colours={"written": BLUE, "deleted": NOTE},
        ).min(0),
        lines(
            Face(
                "Files",
                "Files of the log, and damaged Parquet files that answers leave out. Bad: any damaged.",
                "none",
                width=8,
            ),
            Query(total("", of("introspan_collector_log_segments", INSTANCES)), "log"),
            Query(total("", of("introspan_collector_archive_unreadable_files", INSTANCES)), "damaged"),
            Query(total("", rate("introspan_collector_archive_parts_total", INSTANCES)), "parts a second"),
            colours={"log": BLUE, "damaged": BAD, "parts a second": GREEN},
        ).min(0),
    ),
)
