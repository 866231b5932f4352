"""What the stages of the SDK hand to one another: observations, who measured them, how capture is doing."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_wire.codec import NO_AXIS, Schema
from introspan_wire.signals import PIT_TAIL


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One segment of one request, reduced to a row of values.

    trace_id and span_id are 16 and 8 raw bytes, zero where the caller sent none. token_start is the position
    of the segment's first input token (0 = first prompt token). values: float32 [len(schema.columns)], NaN =
    not measured.
    """

    schema: Schema
    request_id: str
    trace_id: bytes
    span_id: bytes
    cluster_key: int
    adapter: str
    segment_index: int
    token_start: int
    token_count: int
    measured_count: int
    prompt_tokens: int
    cached_tokens: int
    time_unix_nano: int
    sampling_probability: float
    values: NDArray[np.float32]
    model_fingerprint: str = ""
    """Of the weights it was measured on; empty where they are those of its producer's Resource."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Who measures: one worker of one serving engine. Fields as in introspan_wire.v1.Resource."""

    service_name: str
    replica: str
    model_name: str
    model_fingerprint: str
    engine_name: str
    engine_version: str
    dtype: str
    layer_count: int
    head_count: int
    sdk_version: str
    tensor_parallel_rank: int = 0
    pipeline_parallel_rank: int = 0
    data_parallel_rank: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class Disabled:
    """A signal (or a group, such as "attention") that is switched off, and why. reason is snake_case."""

    signal: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tokens whose U (`sampler.pit`) was measured, in the order in which they were drawn, since the worker started.

    low and high count those in the tails; total is the sum of their U. One value, so that a reader on another
    thread never sees half of it changed.
    """

    tokens: int = 0
    low: int = 0
    high: int = 0
    total: float = 0.0

    def plus(self, u: NDArray[np.float32]) -> "Drawn":
        """With the tokens of these U as well, NaN for none."""
        # float32 may round U past 1.
        known = np.minimum(u[~np.isnan(u)].astype(np.float64), 1.0)
        return Drawn(
            self.tokens + known.size,
            self.low + int(np.count_nonzero(known < PIT_TAIL)),
            self.high + int(np.count_nonzero(known > 1 - PIT_TAIL)),
            self.total + float(known.sum()),
        )


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """How capture is doing; every count is cumulative since the worker started."""

    measured_steps: int = 0
    measured_rows: int = 0
    capture_seconds: float = 0.0
    disabled: tuple[Disabled, ...] = ()
    probe_errors: int = 0
    sampler_rows_skipped: int = 0
    attention_rows_skipped: int = 0
    sampling_probability: float = 1.0
    dropped_requests: dict[str, int] = field(default_factory=dict)
    """Requests that are not measured, or not compared, by reason."""
    dropped_rows: dict[str, int] = field(default_factory=dict)
    """Rows that were chosen or measured and enter no segment, by reason."""
    drawn: Drawn = field(default_factory=Drawn)


class RowColumn(NamedTuple):
    """Meaning of one value of a measured row; axes that the signal lacks are introspan_wire.codec.NO_AXIS."""

    signal: str
    layer: int = NO_AXIS
    head: int = NO_AXIS
    component: int = NO_AXIS


@dataclass(frozen=True, slots=True)
class Again:
    """Says that a request is an earlier one sent again, which is compared at the row of this position.

    not_sent: how many more were to be sent again since the last one was, and were not.
    """

    position: int
    not_sent: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request as capture knows it.

    key is the engine's own id, request_id the client's; hash decides about sampling and everything else
    that is drawn by hash. cached_tokens were read from the prefix cache when the request was first scheduled.
    is_canary: every row is measured at every layer, and none of them is traffic. number: names a request that may be
    sent again, and the one that is, whose again is not None; "" for all others.
    """

    key: str
    request_id: str
    trace_id: bytes
    span_id: bytes
    cluster_key: int
    adapter: str
    prompt_tokens: int
    cached_tokens: int
    sampling_probability: float
    hash: int
    is_canary: bool = False
    number: str = ""
    again: Again | None = None

    @property
    def is_traffic(self) -> bool:
        """Whether somebody asked for its own sake: only then it enters statistics."""
        return not self.is_canary and self.again is None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows that one or a few steps of the model measured, in the order of the steps.

    position is that of the row's input token; a row at position prompt_tokens − 1 is the last prompt token's.
    values: float32 [rows, columns], NaN = not measured. closes marks rows after which the segment is sent at
    once.
    """

    requests: list[Request]
    position: NDArray[np.int64]
    values: NDArray[np.float32]
    closes: NDArray[np.bool_]
