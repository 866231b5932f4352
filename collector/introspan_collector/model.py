"""What the stages of the collector hand to one another: one decoded record of the log."""

from dataclasses import dataclass
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
    disabled: tuple[DisabledSignal, ...]
    probe_errors: int
    sampler_rows_skipped: int
    attention_rows_skipped: int
    sampling_probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One accepted batch, as read back from the log.

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
