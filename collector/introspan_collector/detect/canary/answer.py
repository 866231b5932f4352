"""Canary rows in, one answer for each question asked out: what the API returned joined with the states inside."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.model import Batch, Origin
from introspan_collector.suite import BESIDE, DIGEST, NAMES
from introspan_wire import canary
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import PROJECTION_COMPONENTS, TOP_TOKENS

STATE_SIZE = PROJECTION_COMPONENTS + 1
"""Numbers that describe one state: its 32 projections, and √32 · ln rms."""

_WAITING = 512
_MOST_POSITIONS = 4096
_MOST_STATES = 64
_LARGEST_ID = 2**24
_SCALE = np.float32(np.sqrt(PROJECTION_COMPONENTS))


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the API returned for n positions, the prompt's and then those of the generated tokens.

    position: int64 [n], of the row whose next token it is; token: int64 [n], each position's own next token;
    logprob: float32 [n], NaN where the API gave none; top_token: int32 [n, 20], −1 where there are fewer;
    top_logprob: float32 [n, 20]. What is large is kept short: a round has some 700 positions.
    """

    prompt_tokens: int
    position: NDArray[np.int64]
    token: NDArray[np.int64]
    logprob: NDArray[np.float32]
    top_token: NDArray[np.int32]
    top_logprob: NDArray[np.float32]


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
    """One answer; states is None where the engine's worker sent none. origin is the worker's where it is known.

    asked: the address, and the rank behind it, that was asked; signed: whether states were to come.
    """

    suite: str
    prompt: str
    round: str
    received_unix_nano: int
    origin: Origin
    outputs: Outputs
    states: States | None
    asked: str = ""
    signed: bool = False


@dataclass(slots=True)
class Parts:
    """What has come of one answer: who sent each half, and the half."""

    received_unix_nano: int
    outputs: tuple[Origin, Outputs] | None = None
    states: tuple[Origin, States] | None = None

    def is_complete(self) -> bool:
        """Whether the state of the last position is there: a worker may send an answer's rows in several batches.

        Of a model in several pipeline stages each of them sends its layers'. Of what was not signed there will be none.
        """
        if self.outputs is None:
            return False
        if self.states is None:
            return not _is_signed(self.outputs[0])
        origin, states = self.states
        is_there = bool(states.position[-1] >= self.outputs[1].position[-1])
        return is_there and (
            origin.pipeline_parallel_size <= 1 or _has_all_layers(states, origin.layer_count)
        )


class Join:
    """Halves of answers that wait for each other; bounded, the oldest are given up first.

    given_up: halves that nothing came to. foreign: rows of questions that this collector does not know, because
    whoever asked them is of another version, or that are more than any answer has. parts: those that wait.
    """

    def __init__(self) -> None:
        self.parts: OrderedDict[canary.CanaryId, Parts] = OrderedDict()
        self.given_up = 0
        self.foreign = 0

    def add(self, batch: Batch) -> list[Answer]:
        """Takes the canary rows of a batch; returns the answers that both halves are there of now."""
        complete = []
        for table in batch.canaries:
            for found, rows in self._by_answer(table):
                parts = self.parts.setdefault(found, Parts(batch.received_unix_nano))
                self._take(parts, batch.origin, table, rows)
                if parts.is_complete():
                    complete.append(_answer(found, self.parts.pop(found)))
        while len(self.parts) > _WAITING:
            self.parts.popitem(last=False)
            self.given_up += 1
        return complete

    def late(self, before_unix_nano: int) -> list[Answer]:
        """Answers whose states have not come since then: given without them. States without an answer are dropped."""
        late = [name for name, parts in self.parts.items() if parts.received_unix_nano < before_unix_nano]
        answers = []
        for found in late:
            parts = self.parts.pop(found)
            if parts.outputs is None:
                self.given_up += 1
            else:
                answers.append(_answer(found, parts))
        return answers

    def _by_answer(self, table: SegmentTable) -> Iterator[tuple[canary.CanaryId, NDArray[np.intp]]]:
        """The rows of each answer. The API and the worker put different things around its id."""
        names, which = np.unique(np.array(table.request_id), return_inverse=True)
        groups = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
        for name, rows in zip(names.tolist(), groups, strict=True):
            found = canary.find(name)
            if found is not None and found.question == BESIDE:
                continue
            if found is None or found.suite != DIGEST or found.question not in NAMES:
                self.foreign += len(rows)
            else:
                yield found, rows

    def _take(self, parts: Parts, origin: Origin, table: SegmentTable, rows: NDArray[np.intp]) -> None:
        if any(column.signal == "canary.token" for column in table.schema.columns):
            self.foreign += max(0, len(rows) - _MOST_POSITIONS)
            parts.outputs = (origin, _outputs(table, rows[:_MOST_POSITIONS]))
            return
        found = _states(table, rows[:_MOST_STATES])
        if found is None:
            self.foreign += len(rows)
            return
        if parts.states is not None:  # rows of the same answer in an earlier batch, or other layers of theirs
            origin, found = parts.states[0], _joined(parts.states[1], found)
        self.foreign += max(0, len(rows) - _MOST_STATES) + max(0, len(found.position) - _MOST_STATES)
        parts.states = (origin, _first(found, _MOST_STATES))


def _answer(found: canary.CanaryId, parts: Parts) -> Answer:
    assert parts.outputs is not None
    asker, outputs = parts.outputs
    origin, states = (asker, None) if parts.states is None else parts.states
    return Answer(
        *found,
        parts.received_unix_nano,
        origin,
        outputs,
        states,
        asker.replica,
        _is_signed(asker),
    )


def _is_signed(asker: Origin) -> bool:
    return dict(asker.attributes).get(canary.SIGNED) == "true"


def _outputs(table: SegmentTable, rows: NDArray[np.intp]) -> Outputs:
    rows = rows[np.argsort(table.token_start[rows], kind="stable")]
    place = {(column.signal, column.component): i for i, column in enumerate(table.schema.columns)}
    values = table.values[rows]
    nothing = np.full(len(rows), np.nan, np.float32)

    def column(signal: str, component: int) -> NDArray[np.float32]:
        at = place.get((signal, component))
        return nothing if at is None else values[:, at]

    def top(signal: str) -> NDArray[np.float32]:
        return np.stack([column(signal, i) for i in range(TOP_TOKENS)], axis=1)

    return Outputs(
        int(table.prompt_tokens[rows[0]]),
        table.token_start[rows].astype(np.int64),
        _ids(column("canary.token", -1)).astype(np.int64),
        column("canary.logprob", -1),
        _ids(top("canary.top_token")),
        top("canary.top_logprob"),
    )


def _ids(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Token ids; −1 where there is none, or none that a float32 holds exactly."""
    return np.where(np.abs(values) <= _LARGEST_ID, values, -1).astype(np.int32)


def _states(table: SegmentTable, rows: NDArray[np.intp]) -> States | None:
    """The states of rows, None where there are none. As deep as what was measured, whatever a producer says."""
    depth = 1 + max((column.layer for column in table.schema.columns), default=-1)
    if not depth:
        return None
    values = np.full((len(rows), depth, STATE_SIZE), np.nan, np.float32)
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
    """All positions and layers of both; where both have a state, the second one's."""
    position = np.union1d(first.position, second.position)
    depth = max(first.values.shape[1], second.values.shape[1])
    values: NDArray[np.float32] = np.full((len(position), depth, STATE_SIZE), np.nan, np.float32)
    for states in (first, second):
        row = np.searchsorted(position, states.position)
        layers = states.values.shape[1]
        values[row, :layers] = np.where(np.isnan(states.values), values[row, :layers], states.values)
    return States(position, values, first.nonfinite + second.nonfinite)


def _has_all_layers(states: States, layer_count: int) -> bool:
    """Whether the last position's state is there at every layer, and behind the last."""
    last = states.values[-1, :, -1]
    return len(last) > layer_count and not np.isnan(last).any()


def _first(states: States, count: int) -> States:
    return States(states.position[:count], states.values[:count], states.nonfinite)
