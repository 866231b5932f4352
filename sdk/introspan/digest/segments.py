"""Measured rows in, one observation per segment of a request out.

A prompt segment is the row of the last prompt token. Decoded segments span 64, 128, 256, then 512 tokens each, or one
where somebody wants to see every token; their columns reduce the rows by the statistics that the catalogue names for
the signal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan.draw import draw
from introspan.observation import Observation, Request, RowColumn, Rows
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import CATALOGUE, SEGMENT_TOKENS, Kind, Statistic

SINGLE = (1,)
"""Tokens that segments span where each measured token is to be seen by itself."""


@dataclass(slots=True)
class _Open:
    """The segment a request is in. start and stop are token positions; stop is exclusive."""

    index: int
    start: int
    stop: int
    last: int
    measured: int


class Segments:
    """The open segments of all measured requests, their accumulators one array over slots × columns.

    tokens: how many each decoded segment spans at most; later ones as the last of these.
    """

    def __init__(
        self, columns: tuple[RowColumn, ...], capacity: int, tokens: tuple[int, ...] = SEGMENT_TOKENS
    ) -> None:
        self._tokens = tokens
        plan = [
            (source, Column(c.signal, statistic, c.layer, c.head, c.component))
            for source, c in enumerate(columns)
            for statistic in CATALOGUE[c.signal].statistics(Kind.DECODED)
        ]
        self._prompt = Schema(
            Kind.PROMPT,
            tuple(Column(c.signal, Statistic.LAST, c.layer, c.head, c.component) for c in columns),
        )
        self._decoded = Schema(Kind.DECODED, tuple(column for _, column in plan))
        self._source = np.array([source for source, _ in plan], np.intp)
        statistics = np.array([column.statistic for _, column in plan])
        self._is_mean = statistics == Statistic.MEAN
        self._is_max = statistics == Statistic.MAX
        self._is_sample = statistics == Statistic.SAMPLE
        self._is_first = statistics == Statistic.FIRST
        self._is_one = self._is_sample | self._is_first
        self._adds = self._is_mean | (statistics == Statistic.SUM)
        self._value = np.zeros((capacity, len(plan)), np.float32)
        self._count = np.zeros((capacity, len(plan)), np.int32)
        self._best_draw = np.full((capacity, len(plan)), -1.0)
        self._free = list(range(capacity - 1, -1, -1))
        self._slots: dict[str, int] = {}
        self._open: dict[str, _Open] = {}
        self._requests: dict[str, Request] = {}

    def add(self, rows: Rows, now_unix_nano: int) -> list[Observation]:
        """Takes the rows of one step; returns the observations that are complete with them."""
        done: list[Observation] = []
        for i, request in enumerate(rows.requests):
            position = int(rows.position[i])
            if position < request.prompt_tokens:
                done.append(self._of_prompt(request, position, rows.values[i], now_unix_nano))
                continue
            segment = self._open.get(request.key)
            if segment is not None and position >= segment.stop:
                segment.last = segment.stop - 1
                self._close(request, segment, now_unix_nano, done)
            if segment is None or position >= segment.stop:
                segment = self._next(request, segment, position)
            self._accumulate(request, segment, position, rows.values[i])
            if rows.closes[i] or position == segment.stop - 1:
                self._close(request, segment, now_unix_nano, done)
                segment.stop = position + 1
        return done

    def close(self, now_unix_nano: int) -> list[Observation]:
        """Ends every request; returns what their open segments held."""
        requests = list(self._requests.values())
        return [done for r in requests for done in self.finish(r, -1, now_unix_nano)]

    def finish(self, request: Request, last_position: int, now_unix_nano: int) -> list[Observation]:
        """Ends a request at the last position it reached; returns what its open segment held."""
        done: list[Observation] = []
        self._requests.pop(request.key, None)
        segment = self._open.pop(request.key, None)
        if segment is not None:
            segment.last = min(max(segment.last, last_position), segment.stop - 1)
            self._close(request, segment, now_unix_nano, done)
        slot = self._slots.pop(request.key, None)
        if slot is not None:
            self._free.append(slot)
        return done

    def _next(self, request: Request, segment: _Open | None, position: int) -> _Open:
        """The segment that holds a position; segments without a measured row are passed over."""
        start = request.prompt_tokens if segment is None else segment.stop
        index = 1 if segment is None else segment.index + 1
        if self._tokens == SINGLE:
            start = position  # what was not measured between is in none
        while position >= (stop := start + self._tokens[min(index, len(self._tokens)) - 1]):
            start, index = stop, index + 1
        opened = _Open(index, start, stop, start, 0)
        self._open[request.key] = opened
        self._requests[request.key] = request
        slot = self._slots.get(request.key)
        if slot is None:
            slot = self._slots[request.key] = self._free.pop()
        self._value[slot] = np.where(self._is_max, -np.inf, np.where(self._is_one, np.nan, 0))
        self._count[slot] = 0
        self._best_draw[slot] = -1.0
        return opened

    def _accumulate(self, request: Request, segment: _Open, position: int, row: NDArray[np.float32]) -> None:
        slot = self._slots[request.key]
        value, count = self._value[slot], self._count[slot]
        new = row[self._source]
        measured = ~np.isnan(new)
        np.copyto(value, new, where=measured & self._is_first & (count == 0))
        count += measured
        np.add(value, new, out=value, where=measured & self._adds)
        np.maximum(value, new, out=value, where=measured & self._is_max)
        # Each column samples among the rows that measured it; columns of one signal choose the same row.
        drawn = _draw(request, segment.index, position)
        chosen = measured & self._is_sample & (drawn > self._best_draw[slot])
        np.copyto(value, new, where=chosen)
        self._best_draw[slot, chosen] = drawn
        segment.last = position
        segment.measured += 1

    def _close(self, request: Request, segment: _Open, now_unix_nano: int, done: list[Observation]) -> None:
        if not segment.measured:
            return
        slot = self._slots[request.key]
        count = self._count[slot]
        values = self._value[slot] / np.where(self._is_mean, np.maximum(count, 1), 1).astype(np.float32)
        values[(count == 0) & ~self._is_one] = np.nan
        done.append(
            _observation(
                request,
                self._decoded,
                segment.index,
                segment.start,
                segment.last - segment.start + 1,
                segment.measured,
                values,
                now_unix_nano,
            )
        )
        segment.measured = 0

    def _of_prompt(
        self, request: Request, position: int, row: NDArray[np.float32], now_unix_nano: int
    ) -> Observation:
        return _observation(request, self._prompt, 0, position, 1, 1, row.copy(), now_unix_nano)


def _draw(request: Request, segment_index: int, position: int) -> float:
    """The row's number in the draw for a segment's samples."""
    seed = np.array([request.hash ^ segment_index], np.uint64)
    return float(draw(seed, np.array([position]))[0])


def _observation(
    request: Request,
    schema: Schema,
    index: int,
    start: int,
    count: int,
    measured: int,
    values: NDArray[np.float32],
    now_unix_nano: int,
) -> Observation:
    return Observation(
        schema=schema,
        request_id=request.request_id,
        trace_id=request.trace_id,
        span_id=request.span_id,
        cluster_key=request.cluster_key,
        adapter=request.adapter,
        segment_index=index,
        token_start=start,
        token_count=count,
        measured_count=measured,
        prompt_tokens=request.prompt_tokens,
        cached_tokens=request.cached_tokens,
        time_unix_nano=now_unix_nano,
        sampling_probability=request.sampling_probability,
        values=values,
    )
