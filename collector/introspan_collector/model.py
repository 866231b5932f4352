"""What the stages of the collector hand to one another: one decoded record of the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from introspan_wire.codec import SegmentTable


@dataclass(frozen=True, slots=True)
class Origin:
    """Who measured: one worker of one replica of a served model. Hashable."""

    service: str
    model: str
    replica: str
    fingerprint: str
    engine: str
    engine_version: str
    dtype: str
    layer_count: int
    head_count: int
    sdk_version: str
    tensor_parallel_rank: int = 0
    pipeline_parallel_rank: int = 0
    data_parallel_rank: int = 0
    attributes: tuple[tuple[str, str], ...] = ()
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    """Workers of one engine send the same segments, each with columns of its own."""

    @property
    def workers(self) -> int:
        """Workers that the engine is spread over."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def part(self) -> tuple[int, int]:
        """Which of them it is: pipeline stage and tensor-parallel rank."""
        return self.pipeline_parallel_rank, self.tensor_parallel_rank


@dataclass(frozen=True, slots=True)
class DisabledSignal:
    """A signal that the SDK switched off, and why."""

    signal: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProducerStatus:
    """What a producer says of itself; every count is cumulative since it started."""

    measured_steps: int
    measured_rows: int
    capture_seconds: float
    drops: tuple[tuple[str, int], ...]
    """Segments that were not delivered, by reason."""
    disabled: tuple[DisabledSignal, ...]
    probe_errors: int
    sampler_rows_skipped: int
    attention_rows_skipped: int
    sampling_probability: float
    sampler_tokens: int = 0
    """Tokens whose U was measured, in the order in which they were drawn; of these low and high in the tails."""
    sampler_low: int = 0
    sampler_high: int = 0
    sampler_sum: float = 0.0
    """Of their U."""
    dropped_requests: tuple[tuple[str, int], ...] = ()
    """Requests that were not measured, or not compared, by reason."""
    dropped_rows: tuple[tuple[str, int], ...] = ()
    """Rows that were chosen or measured and entered no segment, by reason."""
    queue_age_seconds: float = 0.0
    """Of the oldest observation that waited in the producer when it said this."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One accepted batch, as read back from the log.

    Columns of signals that the catalogue does not know are already left out, and the time of a segment whose
    producer's clock is more than a day off is already the time the collector received it.

    offset is the record's position in the log and next_offset the position after it: a reader that has
    consumed this batch durably stores next_offset as its cursor.
    """

    offset: int
    next_offset: int
    received_unix_nano: int
    producer: bytes
    sequence: int
    origin: Origin
    tables: tuple[SegmentTable, ...]
    status: ProducerStatus | None
    canaries: tuple[SegmentTable, ...] = ()
    """Tables of Kind.CANARY, kept apart from tables so that no statistic of traffic sees them."""


class SeriesKey(NamedTuple):
    """What one aggregated series is about; layer is -1 for a signal without layers."""

    model: str
    replica: str
    adapter: str
    signal: str
    layer: int


class Consumer(Protocol):
    """A stage that reads the log."""

    def consume(self, batch: Batch) -> None:
        """Takes one batch, in log order. Raises nothing for a batch that was accepted."""
        ...


class Checkpointed(Protocol):
    """A consumer whose state is kept in memory and saved together with the position it has read to.

    After a crash the collector calls restore with the last snapshot, then consumes again every batch from
    the position saved with it: each accepted batch counts exactly once.
    """

    def consume(self, batch: Batch) -> None:
        """Takes one batch, in log order."""
        ...

    def snapshot(self) -> bytes:
        """The whole state; called from the thread that calls consume."""
        ...

    def restore(self, state: bytes) -> None:
        """Replaces the state by a snapshot. Raises ValueError for one that it cannot read."""
        ...


@dataclass(frozen=True, slots=True)
class Stats:
    """What the collector says of itself at one moment; counts are cumulative since it started."""

    accepted_batches: int
    accepted_segments: int
    accepted_bytes: int
    duplicate_batches: int
    refused_batches: Mapping[str, int]
    """Batches answered with an error, by reason."""
    dropped: Mapping[str, int]
    """Batches acknowledged and then not processed, or not by one consumer, by reason."""
    failures: Mapping[str, int]
    """What failed behind the log and is tried again, by operation; nothing is lost by it."""
    skewed_segments: int
    """Segments whose time was more than a day off the collector's clock; received time was used."""
    unknown_columns: int
    """Columns left out because the catalogue does not know their signal."""
    rejected_segments: int
    """Segments of accepted batches that were not taken, because this version does not know their kind."""
    producers: int
    evicted_producers: int
    """Producers whose last sequence was forgotten to stay within the bound."""
    processed_batches: int
    pending_bytes: int
    """Bytes received and not yet in the log."""
    log_bytes: int
    log_limit_bytes: int
    """Bytes of the log beyond which its oldest files are deleted."""
    log_segments: int
    lag_bytes: int
    """Bytes in the log that the consumers have not read."""
    lag_limit_bytes: int
    """Bytes that the consumers have not read beyond which batches are refused."""
    lag_seconds: float
    syncs: int
    sync_seconds: float
    write_errors: int
    torn_bytes: int
    """Bytes of half-written records cut off when the log was opened; they were never acknowledged."""
    corrupt_bytes: int
    """Bytes of the log that failed their checksum and were skipped."""
    expired_bytes: int
    """Bytes of the log that retention deleted before the consumers had read them."""
    checkpoint_age_seconds: float
    consumer_cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    """Processor time the consumers took for what they read, by consumer."""
