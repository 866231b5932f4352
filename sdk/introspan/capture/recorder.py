"""The life of requests and the steps of a model in; measured rows out.

The order of one step: `begin_step` before the forward asks the taps for rows, the forward fills their buffers,
`before_sampling` keeps raw logits, `after_sampling` computes everything and hands the rows on. Nothing here knows
an engine: an adapter calls these methods.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention_probe import AttentionProbe
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output_probe import OutputProbe, Sampling
from introspan.capture.rows import Selection, Table
from introspan.capture.self_check import check_streams
from introspan.capture.stream_probe import StreamProbe
from introspan.observation import Request, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Sinks:
    """Where measured rows and the ends of requests go; both are called on the model's thread and must not block."""

    rows: Callable[[Rows], None]
    finished: Callable[[Request, int], None]


class Recorder:
    """Measures one model. stream and attention are None where the model does not offer them."""

    def __init__(
        self,
        layout: Layout,
        table: Table,
        stream: StreamProbe | None,
        attention: AttentionProbe | None,
        output: OutputProbe,
        health: Health,
        sinks: Sinks,
        rows_max: int,
    ) -> None:
        self._layout = layout
        self._table = table
        self._stream = stream
        self._attention = attention
        self._output = output
        self._health = health
        self._sinks = sinks
        self._rows_max = rows_max
        self._selection: Selection | None = None
        self._streams_checked = False
        self._alarmed: set[str] = set()
        blocks = layout.blocks
        self._counting = [
            blocks[name] for name in ("residual.nonfinite", "output.nonfinite", "output.repetition")
        ]

    def begin(self, request: Request, sampling: Sampling) -> None:
        """Follows a request from its first step on."""
        slot = self._table.begin(request)
        if slot is None:
            self._health.drops["table_full"] += 1
            return
        self._output.begin(slot, sampling)
        if self._stream is not None:
            self._stream.forget(slot)

    def finish(self, key: str) -> None:
        """Ends a request, whether it finished or was aborted."""
        ended = self._table.end(key)
        if ended is not None:
            self._alarmed.discard(key)
            self._sinks.finished(*ended)

    def begin_step(self, ids: list[str], start: NDArray[np.int64], scheduled: NDArray[np.int64]) -> None:
        """Chooses the rows of the coming forward. ids in batch order; start, scheduled: tokens [requests]."""
        self.abandon_step()
        if not len(self._table) or not self._health.is_on("capture"):
            return
        selection = self._table.select(ids, start, scheduled)
        if selection is None or len(selection) > self._rows_max:
            return
        self._selection = selection
        if self._stream is not None and self._health.is_on("residual"):
            self._stream.taps.select(torch.from_numpy(selection.token), with_output=not self._streams_checked)
        if self._attention is not None and self._health.is_on("attention"):
            self._attention.select(selection)

    def before_sampling(self, logits: torch.Tensor | None) -> None:
        """Keeps the measured rows of the raw logits [requests, V]."""
        if self._selection is not None and logits is not None and self._health.is_on("output"):
            self._guard("output", lambda selection: self._output.keep(selection, logits))

    def after_sampling(
        self, tokens: Callable[[int], int], generated: Callable[[int], NDArray[np.int32]]
    ) -> None:
        """Computes the step's rows and hands them on.

        tokens and generated give, for a place in the batch, the delivered token and all tokens that the request
        has generated, that one included.
        """
        selection = self._selection
        if selection is None:
            return
        values = np.full((len(selection), len(self._layout.columns)), np.nan, np.float32)
        if self._stream is not None and self._health.is_on("residual"):
            stream = self._stream
            if not self._streams_checked:
                self._streams_checked = True
                self._guard("residual", lambda s: check_streams(stream.taps, len(s), self._health))
            if self._health.is_on("residual"):
                self._guard("residual", lambda s: stream.measure(s, values))
        if self._attention is not None and self._health.is_on("attention"):
            attention = self._attention
            self._guard("attention", lambda s: attention.measure(s, values))
        if self._health.is_on("output"):
            self._guard("output", lambda s: self._measure_output(s, tokens, generated, values))
        self.abandon_step()
        self._health.measured_steps += 1
        self._health.measured_rows += len(selection)
        self._sinks.rows(
            Rows(selection.requests, selection.position, values, self._closes(selection, values))
        )

    def abandon_step(self) -> None:
        """Asks for no rows: a step that was cut short, a dummy run."""
        self._selection = None
        if self._stream is not None:
            self._stream.taps.deselect()
        if self._attention is not None:
            self._attention.deselect()

    def _measure_output(
        self,
        selection: Selection,
        tokens: Callable[[int], int],
        generated: Callable[[int], NDArray[np.int32]],
        values: NDArray[np.float32],
    ) -> None:
        batch = selection.batch.tolist()
        self._output.measure(
            selection,
            np.array([request.hash for request in selection.requests], np.uint64),
            np.array([tokens(i) for i in batch], np.int64),
            [generated(i) for i in batch],
            values,
        )

    def _closes(self, selection: Selection, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Rows at which something countable begins; going on about it every row would say nothing new."""
        found = np.zeros(len(selection), np.bool_)
        for block in self._counting:
            found |= (values[:, block] > 0).any(axis=1)
        for row in np.flatnonzero(found).tolist():
            key = selection.requests[row].key
            found[row] = key not in self._alarmed
            self._alarmed.add(key)
        return found

    def _guard(self, probe: str, action: Callable[[Selection], None]) -> None:
        """Runs a probe so that an error costs its own signals only."""
        assert self._selection is not None
        try:
            action(self._selection)
        except Exception as error:  # noqa: BLE001 - the edge of a probe
            self._health.error(probe, error)
