"""A reply in, the table of rows that goes to the collector out: one row for each position."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.probe.conversation import Reply
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import TOP_TOKENS, Kind, Statistic

_SCHEMA = Schema(
    Kind.CANARY,
    (
        Column("canary.token", Statistic.LAST),
        Column("canary.logprob", Statistic.LAST),
        *(Column("canary.top_logprob", Statistic.LAST, component=i) for i in range(TOP_TOKENS)),
        *(Column("canary.top_token", Statistic.LAST, component=i) for i in range(TOP_TOKENS)),
    ),
)


def table(reply: Reply, now_unix_nano: int) -> SegmentTable:
    """The rows of a reply. Token ids above 2²⁴ would not be exact as float32; no vocabulary comes near."""
    n = len(reply.likely)
    own = (*reply.prompt, *reply.generated)[reply.first + 1 :]
    values = np.full((n, len(_SCHEMA.columns)), np.nan, np.float32)
    for row, (token, likely) in enumerate(zip(own, reply.likely, strict=True)):
        ranked = sorted(likely.items(), key=lambda item: (-item[1], item[0]))[:TOP_TOKENS]
        values[row, :2] = token, likely.get(token, np.nan)
        values[row, 2 : 2 + len(ranked)] = [logprob for _, logprob in ranked]
        values[row, 2 + TOP_TOKENS : 2 + TOP_TOKENS + len(ranked)] = [token for token, _ in ranked]

    def same(value: int) -> NDArray[np.uint32]:
        return np.full(n, value, np.uint32)

    return SegmentTable(
        schema=_SCHEMA,
        request_id=[reply.request_id] * n,
        trace_id=np.zeros((n, 16), np.uint8),
        span_id=np.zeros((n, 8), np.uint8),
        cluster_key=np.zeros(n, np.uint64),
        adapter=[""] * n,
        segment_index=np.arange(n, dtype=np.uint32),
        token_start=np.arange(reply.first, reply.first + n, dtype=np.uint32),
        token_count=same(1),
        measured_count=same(1),
        prompt_tokens=same(len(reply.prompt)),
        cached_tokens=same(0),
        time_unix_nano=np.full(n, now_unix_nano, np.uint64),
        sampling_probability=np.ones(n, np.float32),
        values=values,
    )
