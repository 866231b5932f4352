"""Canary rows in, one answer for each question asked out: what the API returned joined with the states inside."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.model import Batch, Origin
from introspan_wire import canary
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import PROJECTION_COMPONENTS, TOP_TOKENS

STATE_SIZE = PROJECTION_COMPONENTS + 1
"""Numbers that describe one state: its 32 projections, and √32 · ln rms."""

_WAITING = 4096
_SCALE = np.float32(np.sqrt(PROJECTION_COMPONENTS))


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the API returned for n positions, the prompt's and then those of the generated tokens.

    position: int64 [n], of the row whose next token it is; token: int64 [n], each position's own next token;
    logprob: float64 [n], NaN where the API gave none; top_token: int64 [n, 20], −1 where there are fewer;
    top_logprob: float64 [n, 20].
    """

    prompt_tokens: int
    position: NDArray[np.int64]
    token: NDArray[np.int64]
    logprob: NDArray[np.float64]
    top_token: NDArray[np.int64]
    top_logprob: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """The residual stream at n positions: float32 [n, L + 1, 33], NaN where a layer was not measured.

    33 numbers: P ĥ and √32 · ln rms, so that a relative change of the stream weighs the same in both.
    """

    position: NDArray[np.int64]
    values: NDArray[np.float32]
    nonfinite: int


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One answer; states is None where the engine's worker sent none. origin is the worker's where it is known."""

    suite: str
    prompt: str
    round: str
    received_unix_nano: int
    origin: Origin
    outputs: Outputs
    states: States | None


@dataclass(slots=True)
class _Parts:
    received_unix_nano: int
    outputs: tuple[Origin, Outputs] | None = None
    states: tuple[Origin, States] | None = None

    def is_complete(self) -> bool:
        """Whether the state of the last position is there: a worker may send an answer's rows in several batches."""
        if self.outputs is None or self.states is None:
            return False
        return bool(self.states[1].position[-1] >= self.outputs[1].position[-1])


class Join:
    """Halves of answers that wait for each other; bounded, the oldest are given up first."""

    def __init__(self) -> None:
        self._parts: OrderedDict[canary.CanaryId, _Parts] = OrderedDict()
        self.given_up = 0

    def add(self, batch: Batch) -> list[Answer]:
        """Takes the canary rows of a batch; returns the answers that both halves are there of now."""
        complete = []
        for table in batch.canaries:
            for request_id in dict.fromkeys(table.request_id):
                rows = np.array([i for i, name in enumerate(table.request_id) if name == request_id])
                # The API and the worker put different things around the id.
                found = canary.find(request_id)
                if found is None:
                    continue
                parts = self._parts.setdefault(found, _Parts(batch.received_unix_nano))
                self._take(parts, batch.origin, table, rows)
                if parts.is_complete():
                    complete.append(_answer(found, self._parts.pop(found)))
        while len(self._parts) > _WAITING:
            self._parts.popitem(last=False)
            self.given_up += 1
        return complete

    def late(self, before_unix_nano: int) -> list[Answer]:
        """Answers whose states have not come since then: given without them. States without an answer are dropped."""
        late = [name for name, parts in self._parts.items() if parts.received_unix_nano < before_unix_nano]
        answers = []
        for found in late:
            parts = self._parts.pop(found)
            if parts.outputs is None:
                self.given_up += 1
            else:
                answers.append(_answer(found, parts))
        return answers

    def _take(self, parts: _Parts, origin: Origin, table: SegmentTable, rows: NDArray[np.intp]) -> None:
        if any(column.signal == "canary.token" for column in table.schema.columns):
            parts.outputs = (origin, _outputs(table, rows))
            return
        found = _states(table, rows, origin.layer_count)
        if parts.states is not None:  # rows of the same answer in an earlier batch
            found = _joined(parts.states[1], found)
        parts.states = (origin, found)


def _answer(found: canary.CanaryId, parts: _Parts) -> Answer:
    assert parts.outputs is not None
    origin, outputs = parts.outputs
    states = None
    if parts.states is not None:
        origin, states = parts.states
    return Answer(
        *found,
        parts.received_unix_nano,
        origin,
        outputs,
        states,
    )


def _outputs(table: SegmentTable, rows: NDArray[np.intp]) -> Outputs:
    rows = rows[np.argsort(table.token_start[rows], kind="stable")]
    place = {(column.signal, column.component): i for i, column in enumerate(table.schema.columns)}
    values = table.values[rows].astype(np.float64)
    nothing = np.full(len(rows), np.nan)

    def column(signal: str, component: int) -> NDArray[np.float64]:
        at = place.get((signal, component))
        return nothing if at is None else values[:, at]

    def top(signal: str) -> NDArray[np.float64]:
        return np.stack([column(signal, i) for i in range(TOP_TOKENS)], axis=1)

    return Outputs(
        int(table.prompt_tokens[rows[0]]),
        table.token_start[rows].astype(np.int64),
        _ids(column("canary.token", -1)),
        column("canary.logprob", -1),
        _ids(top("canary.top_token")),
        top("canary.top_logprob"),
    )


def _ids(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def _states(table: SegmentTable, rows: NDArray[np.intp], layer_count: int) -> States:
    values = np.full((len(rows), layer_count + 1, STATE_SIZE), np.nan, np.float32)
    nonfinite = 0.0
    for i, column in enumerate(table.schema.columns):
        if column.signal == "residual.projection":
            values[:, column.layer, column.component] = table.values[rows, i]
        elif column.signal == "residual.log_rms":
            values[:, column.layer, -1] = _SCALE * table.values[rows, i]
        elif column.signal == "residual.nonfinite":
            nonfinite += float(np.nansum(table.values[rows, i]))
    order = np.argsort(table.token_start[rows], kind="stable")
    return States(table.token_start[rows].astype(np.int64)[order], values[order], int(nonfinite))


def _joined(first: States, second: States) -> States:
    if first.values.shape[1:] != second.values.shape[1:]:
        return second
    position = np.concatenate([first.position, second.position])
    order = np.argsort(position, kind="stable")
    values = np.concatenate([first.values, second.values])
    return States(position[order], values[order], first.nonfinite + second.nonfinite)
