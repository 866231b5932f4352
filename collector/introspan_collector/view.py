"""What the aggregates show of themselves at one moment: read by everything that exposes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.model import Origin, ProducerStatus, SeriesKey
from introspan_collector.moments import Moments
from introspan_wire.codec import SegmentTable

OVERFLOW = "__overflow__"
"""Stands for model, replica and adapter of everything beyond the series limit."""

NO_LAYER = -1
"""Layer of a signal without layers, and of the overflow series."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measured value of a traced request. Ids are lower-case hex; span_id is "" where there was none."""

    trace_id: str
    span_id: str
    value: float
    time_unix_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Cumulative histogram of one signal of one replica since the collector's state began.

    bounds: upper bounds, inclusive; counts: weighted values in each bucket, one more than bounds (the last is
    +Inf), not cumulated; total: weighted sum; exemplars: by bucket.
    """

    model: str
    replica: str
    signal: str
    bounds: tuple[float, ...]
    counts: NDArray[np.float64]
    total: float
    exemplars: dict[int, Exemplar]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker of a replica as last heard of; segments by kind count since the collector's state began.

    exposed is False where the series limit has left no room for its own series on /metrics.
    """

    origin: Origin
    status: ProducerStatus | None
    last_seen_unix_nano: int
    segments: tuple[tuple[str, int], ...]
    exposed: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Everything that is exposed, at one moment. `window` has one set for each of `series`."""

    time_unix_nano: int
    window_seconds: float
    series: tuple[SeriesKey, ...]
    window: Moments
    histograms: tuple[Histogram, ...]
    events: tuple[tuple[SeriesKey, float], ...]
    workers: tuple[Worker, ...]
    series_limit: int
    series_used: int
    overflow_values: int
    infinite_values: int
    schemas: int
    """Sets of columns that are kept decoded, with what is made of them."""
    evicted_schemas: int
    """Of those, forgotten to make room for others; nothing is lost by it, but time where they come again."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One series over time: Moments for each start, which is in Unix seconds."""

    key: SeriesKey
    starts: NDArray[np.float64]
    moments: Moments


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Segments as one replica of a model sent them."""

    model: str
    replica: str
    table: SegmentTable


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """What the archive says of itself; counts since it was opened."""

    parts_written: int
    segments_written: int
    bytes_written: int
    write_seconds: float
    write_errors: int
    lost_segments: int
    bytes_deleted: int
    bytes_kept: int
    buffered_bytes: int
    unreadable_files: int
