"""The life of requests and the steps of a model in; measured rows out.

The order of one step: `must_flush` and `flush` come before blocks change hands, `begin_step` before the forward asks
for rows, the forward fills their buffers, `before_sampling` keeps raw logits, `after_sampling` takes the rows in. The
rows of a few steps are computed together, since on rows as few as a step's the operators' own cost is most of it.
Nothing here knows an engine: an adapter calls these methods.
"""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output.repetition import longest_period_tail
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection, Table, fitting
from introspan.capture.step.handover import Handover, Measured
from introspan.capture.step.onset import Onsets
from introspan.capture.step.probes import Probes, Streams
from introspan.capture.step.sinks import Sinks
from introspan.capture.step.waiting import Waiting
from introspan.capture.taps.block_table import TablesOf
from introspan.capture.taps.self_check import check_streams
from introspan.observation import Observation, Request

TOGETHER_ROWS = 48
"""Rows that are computed together, unless one has waited too long."""


class Recorder:
    """Measures one model. rows_max: rows that the probes' buffers hold.

    Every method may raise; the adapter then calls `discard`, so that no value can reach another request's row.
    """

    longest_wait_seconds = 4.0

    def __init__(
        self,
        layout: Layout,
        table: Table,
        probes: Probes,
        health: Health,
        sinks: Sinks,
        rows_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout
        self._table = table
        self._probes = probes
        self._health = health
        self._clock = clock
        self._selection: Selection | None = None
        self._rows_max = rows_max
        self._waiting = Waiting(rows_max, len(layout.columns))
        self._streams_checked = probes.stream is None
        self._streams_lost = False
        self._onsets = Onsets(layout)
        self._apart: set[str] = set()  # requests that are no traffic: canaries, and those sent again
        self._handover = Handover(layout, self._onsets, probes.reprefill, self._apart, health, sinks)

    def begin(self, request: Request, sampling: Sampling) -> None:
        """Follows a request from its first step on."""
        self.finish(request.key)  # an engine that gives an id again means another request
        reprefill = self._probes.reprefill
        if request.again is not None and (reprefill is None or not reprefill.expects(request)):
            return
        slot = self._table.begin(request)
        if slot is None:
            self._health.dropped_requests["table_full"] += 1
            return
        if not request.is_traffic:
            self._apart.add(request.key)
        if self._probes.output is not None:
            self._probes.output.begin(slot, sampling)
        if self._probes.stream is not None:
            self._probes.stream.forget(slot)

    def finish(self, key: str) -> None:
        """Ends a request, whether it finished or was aborted. It has ended even where this raises."""
        try:
            if self._waiting.holds(key):
                self.flush()
        finally:
            ended = self._table.end(key)
            self._forget(key)
            if ended is not None:
                self._handover.end(*ended)

    def _forget(self, key: str) -> None:
        self._onsets.forget(key)
        self._apart.discard(key)

    def leave(self) -> None:
        """Ends all requests between two steps: what waits is computed, and they are followed no further."""
        self.flush()
        for key in self._table.followed():
            self.finish(key)
        self.discard()  # nothing waits any more, but there may be rows that requests sent again are compared with

    def close(self) -> None:
        """Computes what waits; nothing comes after. A step of which no more was heard counts as cut short."""
        self._drop_step("step_cut_short")
        self.flush()

    def must_flush(self, scheduled: AbstractSet[str]) -> bool:
        """Whether rows wait whose requests are not in the coming step: they may have lost their blocks."""
        return not self._waiting.all_within(scheduled)

    @property
    def keeps_logits(self) -> bool:
        """Whether `before_sampling` has anything to do in this step."""
        selection = self._selection
        return self._probes.output is not None and selection is not None and bool(selection.attention.any())

    @property
    def has_rows(self) -> bool:
        """Whether `after_sampling` has anything to do in this step."""
        return self._selection is not None

    def begin_step(self, ids: list[str], start: NDArray[np.int64], scheduled: NDArray[np.int64]) -> None:
        """Chooses the rows of the coming forward. ids in batch order; start, scheduled: tokens [requests]."""
        self._drop_step("step_cut_short")
        if self._waiting.age_seconds(self._clock()) > self.longest_wait_seconds:
            self.flush()
        if not len(self._table):
            return
        selection = self._table.select(ids, start, scheduled)
        if selection is None:
            return
        if len(selection) > self._rows_max:
            self._health.dropped_rows["buffers_full"] += len(selection) - self._rows_max
            selection = fitting(selection, self._rows_max)
        self._selection = selection  # from here on its rows are taken in, or counted as dropped
        stream, attention = self._probes.stream, self._probes.attention
        is_too_much = attention is not None and attention.is_too_much(selection)
        # The rows of a canary are at points where those that wait are not.
        has_canaries = self._has_canaries(selection)
        if is_too_much or has_canaries or not self._waiting.has_room(len(selection)):
            self.flush()
        if stream is not None and self._health.is_on("residual"):
            token, is_first = torch.from_numpy(selection.token), not self._streams_checked
            stream.taps.select(token, self._waiting.count, with_output=is_first, everywhere=has_canaries)
        if attention is not None and self._health.is_on("attention"):
            attention.select(selection)

    def before_sampling(self, logits: torch.Tensor | None, rows: NDArray[np.int64] | None = None) -> None:
        """Keeps the measured rows of the raw logits [requests, V]; rows: [requests] their places if they are others."""
        selection, output = self._selection, self._probes.output
        if selection is None or output is None or logits is None or not self._health.is_on("output"):
            return
        kept = selection if rows is None else replace(selection, batch=rows[selection.batch])
        self._guard("output", lambda: output.keep(kept, logits))

    @property
    def needs_block_tables(self) -> bool:
        """Whether `after_forward` has anything to do in this step."""
        attention = self._probes.attention
        return self._selection is not None and attention is not None and attention.needs_block_tables

    def after_forward(self, tables: TablesOf) -> None:
        """Takes what the taps of a replayed forward cannot know: where its keys are."""
        attention = self._probes.attention
        if self._selection is not None and attention is not None and self._health.is_on("attention"):
            self._guard("attention", lambda: attention.take_block_tables(tables))

    def after_sampling(
        self, tokens: Callable[[int], int], generated: Callable[[int], NDArray[np.int32]] | None
    ) -> None:
        """Takes the step's rows in, and computes what waits when it is enough.

        tokens and generated give, for a place in the batch, the delivered token and all tokens that the request
        has generated, that one included, or None where they come later; asked only where output is measured.
        """
        selection = self._selection
        if selection is None:
            return
        before, values = self._waiting.count, self._waiting.place(selection)
        stream, attention, output = self._probes.stream, self._probes.attention, self._probes.output
        if stream is not None and self._health.is_on("residual"):
            self._judge_taps(stream)
        if attention is not None and self._health.is_on("attention"):
            self._guard("attention", lambda: attention.take_in(selection, before))
        if output is not None and self._health.is_on("output"):
            self._guard("output", lambda: output.deliver(selection, before, tokens))
            if generated is not None:
                repetition = [longest_period_tail(generated(i)) for i in selection.batch.tolist()]
                values[:, self._layout.blocks["output.repetition"].start] = repetition
        self._waiting.add(selection, self._clock())
        self._selection = None
        self._health.measured_steps += 1
        self._health.measured_rows += len(selection)
        is_urgent = not self._streams_checked or self._onsets.repeats(selection, values)
        is_urgent |= attention is not None and not attention.can_wait
        is_urgent |= self._is_not_finite(selection, before)
        is_urgent |= bool(self._apart) and not all(request.is_traffic for request in selection.requests)
        self._abandon_step()
        if is_urgent or self._waiting.count >= TOGETHER_ROWS:
            self.flush()

    def flush(self) -> None:
        """Computes what waits and hands it on."""
        if not self._waiting.count:
            return
        selection, values = self._waiting.peek()
        stream, attention, output = self._probes.stream, self._probes.attention, self._probes.output
        if stream is not None and self._health.is_on("residual") and not self._streams_lost:
            self._guard("residual", lambda: self._measure_streams(stream, selection, values))
        if attention is not None and self._health.is_on("attention"):
            self._guard("attention", lambda: attention.measure(values))
        if output is not None and self._health.is_on("output"):
            self._guard("output", lambda: output.measure(selection, values))
        canaries = self._of_canaries(selection)
        self._hand_on(Measured(selection, values.copy(), canaries, is_whole=not self._streams_lost))
        self._forget_waiting()  # last: what raises above is discarded, and counted

    def _hand_on(self, measured: Measured) -> None:
        self._handover.give(measured)

    def discard(self) -> None:
        """Drops the step at hand and every row that waits, and counts them; and what is kept to be compared."""
        self._health.dropped_rows["discarded"] += self._waiting.count
        self._drop_step("discarded")
        self._forget_waiting()
        if self._probes.reprefill is not None:
            self._probes.reprefill.forget()

    def _drop_step(self, reason: str) -> None:
        """Counts the rows of a step that has begun and is not taken in, if there is one."""
        if self._selection is not None:
            self._health.dropped_rows[reason] += len(self._selection)
        self._abandon_step()

    def _abandon_step(self) -> None:
        """Asks for no rows: between steps, a step that was cut short, a dummy run."""
        self._selection = None
        if self._probes.output is not None:
            self._probes.output.abandon()
        if self._probes.stream is not None:
            self._probes.stream.taps.deselect()
        if self._probes.attention is not None:
            self._probes.attention.deselect()

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._streams_lost = False
        if self._probes.output is not None:
            self._probes.output.drop()
        if self._probes.attention is not None:
            self._probes.attention.drop()

    def _measure_streams(self, stream: Streams, selection: Selection, values: NDArray[np.float32]) -> None:
        if not self._streams_checked:
            self._streams_checked = check_streams(stream.taps, len(selection), self._health)
        elif stream.taps.was_silent():
            self._health.refuse(stream.silence())
        if self._health.is_on("residual"):
            stream.measure(selection, values)

    def _judge_taps(self, stream: Streams) -> None:
        """Takes no rows from taps that did not give them; one that is silent in the first step is the self-check's."""
        self._streams_lost |= stream.taps.failed
        if self._streams_checked and not self._streams_lost and not stream.taps.complete():
            if self._waiting.count:  # what earlier steps gave is whole
                self._guard("residual", lambda: stream.measure(*self._waiting.peek()))
            self._health.refuse(stream.silence())

    def _has_canaries(self, selection: Selection) -> bool:
        return bool(self._apart) and any(request.is_canary for request in selection.requests)

    def _of_canaries(self, selection: Selection) -> dict[int, Observation]:
        """What is measured of the canaries among the rows, by row, while their streams are in the taps' buffers."""
        canary = self._probes.canary
        measures = self._health.is_on("residual") and not self._streams_lost
        measures = measures and self._health.is_on("canary") and self._has_canaries(selection)
        if canary is None or not measures:
            return {}
        found: dict[int, Observation] = {}
        self._guard("canary", lambda: canary.measure(selection, found))
        return found

    def _is_not_finite(self, selection: Selection, before: int) -> bool:
        """Whether a request shows a value that is not finite for the first time: nobody should wait to be told."""
        stream, output = self._probes.stream, self._probes.output
        found = set(output.not_finite()) if output is not None and self._health.is_on("output") else set()
        if stream is not None and self._health.is_on("residual"):
            found.update(stream.taps.not_finite(before, len(selection)))
        return self._onsets.is_any_new(selection, found)

    def _guard(self, probe: str, action: Callable[[], None]) -> None:
        """Runs a probe so that an error costs its own signals only."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the edge of a probe
            self._health.error(probe, error)
