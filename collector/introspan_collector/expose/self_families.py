"""What the collector says of itself in, Prometheus metric families out."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.model import Stats
from introspan_collector.view import ArchiveStats, View

_COUNTERS = {
    "accepted_batches": ("accepted_batches", "Batches acknowledged."),
    "accepted_segments": ("accepted_segments", "Segments acknowledged."),
    "accepted_bytes": ("accepted_bytes", "Bytes of acknowledged batches."),
    "duplicate_batches": (
        "duplicate_batches",
        "Batches sent again that were accepted before, and not counted again.",
    ),
    "skewed_segments": (
        "skewed_segments",
        "Segments whose clock was more than a day off; received time was used.",
    ),
    "unknown_columns": ("unknown_columns", "Columns left out because their signal is not in the catalogue."),
    "rejected_segments": ("rejected_segments", "Segments not taken because their kind is not known."),
    "evicted_producers": ("evicted_producers", "Producers whose last sequence was forgotten."),
    "processed_batches": ("processed_batches", "Batches read from the log and handed to the consumers."),
    "syncs": ("log_syncs", "Times the log was forced to the disk."),
    "sync_seconds": ("log_sync_seconds", "Time spent forcing the log to the disk."),
    "write_errors": ("log_write_errors", "Writes to the log that failed."),
    "torn_bytes": ("log_torn_bytes", "Bytes of half-written, never acknowledged records cut off at start."),
    "corrupt_bytes": ("log_corrupt_bytes", "Bytes of the log that failed their checksum and were skipped."),
    "expired_bytes": ("log_expired_bytes", "Bytes of the log deleted by retention before they were read."),
}
_GAUGES = {
    "producers": ("producers", "Producers heard of."),
    "pending_bytes": ("pending_bytes", "Bytes received and not yet in the log."),
    "log_bytes": ("log_size_bytes", "Bytes of the log on the disk."),
    "log_limit_bytes": ("log_limit_bytes", "Bytes of the log beyond which its oldest segments are deleted."),
    "log_segments": ("log_segments", "Segment files of the log."),
    "lag_bytes": ("lag_bytes", "Bytes in the log that the consumers have not read."),
    "lag_limit_bytes": ("lag_limit_bytes", "Unread bytes in the log beyond which batches are refused."),
    "lag_seconds": ("lag_seconds", "Age of the batch the consumers are at; 0 when they have read all."),
    "checkpoint_age_seconds": ("checkpoint_age_seconds", "Time since the aggregates were last saved."),
}
_ARCHIVE_COUNTERS = {
    "parts_written": ("archive_parts", "Parquet parts written."),
    "segments_written": ("archive_segments", "Segments written to Parquet."),
    "bytes_written": ("archive_written_bytes", "Bytes written to Parquet."),
    "write_seconds": ("archive_write_seconds", "Time spent writing Parquet."),
    "write_errors": ("archive_write_errors", "Attempts to write Parquet that failed and are repeated."),
    "lost_segments": (
        "archive_lost_segments",
        "Segments not archived because the disk refused for too long.",
    ),
    "bytes_deleted": ("archive_deleted_bytes", "Bytes of Parquet deleted by retention."),
}
_ARCHIVE_GAUGES = {
    "bytes_kept": ("archive_size_bytes", "Bytes of Parquet on the disk."),
    "buffered_bytes": ("archive_buffered_bytes", "Bytes waiting to be written to Parquet."),
    "unreadable_files": ("archive_unreadable_files", "Damaged Parquet files that are left out of answers."),
}


def collector_families(stats: Stats, archive: ArchiveStats, view: View) -> Iterator[Metric]:
    """Metrics about the collector itself: introspan_collector_*."""
    yield from _plain(stats, _COUNTERS, CounterMetricFamily)
    yield from _plain(stats, _GAUGES, GaugeMetricFamily)
    yield from _plain(archive, _ARCHIVE_COUNTERS, CounterMetricFamily)
    yield from _plain(archive, _ARCHIVE_GAUGES, GaugeMetricFamily)
    yield _labelled("refused_batches", "reason", "Batches answered with an error.", stats.refused_batches)
    yield _labelled(
        "dropped_batches",
        "reason",
        "Batches acknowledged and then not processed, or not by one consumer.",
        stats.dropped,
    )
    text = "Work behind the log that failed and is tried again, without loss: reading it, saving, upkeep of a stage."
    yield _labelled("failures", "operation", text, stats.failures)
    text = "Processor time the consumers took for what they read."
    yield _labelled("consumer_cpu_seconds", "consumer", text, stats.consumer_cpu_seconds)
    for name, text, value in (
        ("series", "Time series of signals and workers that are exposed.", view.series_used),
        ("series_limit", "Most time series of signals and workers that will be exposed.", view.series_limit),
        ("schemas", "Sets of columns that are kept decoded.", view.schemas),
        (
            "hidden_workers",
            "Workers whose own series are left out to keep to the limit.",
            sum(not worker.exposed for worker in view.workers),
        ),
    ):
        yield GaugeMetricFamily(f"introspan_collector_{name}", text, value)
    for name, text, value in (
        ("overflow_values", "Values counted in an overflow series.", view.overflow_values),
        ("infinite_values", "Infinite values, which are in no statistic.", view.infinite_values),
        (
            "evicted_schemas",
            "Sets of columns that were forgotten to make room for others; decoded again where they come again.",
            view.evicted_schemas,
        ),
    ):
        yield CounterMetricFamily(f"introspan_collector_{name}", text, value)


def _plain(
    source: Stats | ArchiveStats,
    names: Mapping[str, tuple[str, str]],
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
) -> Iterator[Metric]:
    for field, (name, text) in names.items():
        yield family(f"introspan_collector_{name}", text, getattr(source, field))


def _labelled(name: str, label: str, text: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"introspan_collector_{name}", text, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
