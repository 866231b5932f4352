"""Measured rows of requests, and of the same requests sent again, in; how far apart their states are out."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.rows import Selection
from introspan.observation import Observation, Request
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind, Statistic

MOST_HELD = 256
"""Requests of which rows are kept until they come again; a thousand bytes each, the oldest goes first."""

_ROWS_EACH = 2
# The engine may be a few tokens ahead of what the API process delivers, as where an answer ends at a word.


@dataclass(slots=True, eq=False)
class _Held:
    """The last rows of a request that ended a burst, by position."""

    request: Request
    rows: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class ReprefillProbe:
    """Keeps projections of requests that may be sent again, and compares them when they are.

    rate: probability with which the API process chooses a request, by the hash that measurement chooses by too.
    """

    def __init__(
        self, layout: Layout, rate: float, drops: Counter[str], clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._block = layout.blocks["residual.projection"]
        self._rate = rate
        self._drops = drops
        self._clock = clock
        self._held: dict[str, _Held] = {}
        layers = layout.projection_layers
        self._schema = Schema(
            Kind.REPREFILL,
            tuple(Column("consistency.reprefill", Statistic.LAST, layer) for layer in layers),
        )

    def __len__(self) -> int:
        return len(self._held)

    def expects(self, request: Request) -> bool:
        """Whether there is what a request that was sent again is to be compared with; if not, it is counted."""
        held, again = self._held.get(request.number), request.again
        if again is None:
            return False
        if again.not_sent:
            self._drops["reprefill_not_sent"] += again.not_sent
        is_there = held is not None and again.position in held.rows
        self._drops["reprefill_unmatched"] += not is_there
        return is_there

    def forget(self) -> None:
        """Drops all rows, which are of other weights than what comes from now on."""
        self._held.clear()

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> list[Observation]:
        """Keeps rows of requests that may be sent again; gives an observation of each that was.

        values: [rows, columns], measured already.
        """
        found = []
        for row, request in enumerate(selection.requests):
            if not request.number:
                continue
            position = int(selection.position[row])
            if request.again is None:
                if selection.attention[row] and position >= request.prompt_tokens:
                    self._keep(request, position, values[row, self._block])
            elif position == request.again.position:
                held = self._held.pop(request.number, None)
                if held is not None and position in held.rows:
                    found.append(self._compared(held.request, position, held.rows[position], values[row]))
        return found

    def _keep(self, request: Request, position: int, projections: NDArray[np.float32]) -> None:
        held = self._held.get(request.number)
        if held is None:
            if len(self._held) >= MOST_HELD:
                del self._held[next(iter(self._held))]
                self._drops["reprefill_forgotten"] += 1
            held = self._held[request.number] = _Held(request)
        held.rows[position] = projections.copy()
        while len(held.rows) > _ROWS_EACH:
            del held.rows[min(held.rows)]

    def _compared(
        self, request: Request, position: int, before: NDArray[np.float32], again: NDArray[np.float32]
    ) -> Observation:
        """The distance at each layer, as an observation of the request that somebody asked."""
        apart = (before - again[self._block]).reshape(-1, PROJECTION_COMPONENTS)
        distance = np.linalg.norm(apart, axis=1) / math.sqrt(PROJECTION_COMPONENTS)
        return Observation(
            schema=self._schema,
            request_id=request.request_id,
            trace_id=request.trace_id,
            span_id=request.span_id,
            cluster_key=request.cluster_key,
            adapter=request.adapter,
            segment_index=0,
            token_start=position,
            token_count=1,
            measured_count=1,
            prompt_tokens=request.prompt_tokens,
            cached_tokens=request.cached_tokens,
            time_unix_nano=self._clock(),
            sampling_probability=min(self._rate, request.sampling_probability),
            values=distance.astype(np.float32),
        )
