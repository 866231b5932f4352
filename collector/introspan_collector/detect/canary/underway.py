"""Halves of answers that wait, and rounds that are not complete, in; a JSON header and arrays out — and back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from introspan_collector.detect.canary.answer import Answer, Outputs, Parts, States
from introspan_collector.detect.canary.record import Arrays, dump_rounds, load_rounds
from introspan_collector.model import Origin
from introspan_wire.canary import CanaryId
from introspan_wire.signals import TOP_TOKENS


@dataclass(slots=True)
class OpenRound:
    """Answers of one round, by question, while others may come; when its first and its last came."""

    since_unix_nano: int
    heard_unix_nano: int
    answers: dict[str, Answer] = field(default_factory=dict)


# What a worker's half lacks.
_NO_OUTPUTS = Outputs(
    0,
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.float32),
    np.zeros((0, TOP_TOKENS), np.int32),
    np.zeros((0, TOP_TOKENS), np.float32),
)


# Any: what JSON can hold.
def dump_parts(parts: Mapping[CanaryId, Parts], arrays: Arrays) -> list[dict[str, Any]]:
    """The header of halves; their arrays are put among the others. Each half is kept as an answer without the other."""
    header: list[dict[str, Any]] = []
    halves: list[Answer] = []
    for found, one in parts.items():
        header.append(
            {
                "id": list(found),
                "received_unix_nano": one.received_unix_nano,
                "outputs": one.outputs is not None,
                "states": one.states is not None,
            }
        )
        halves += _halves(found, one)
    rounds = dump_rounds([{half.prompt: half} for half in halves], "half_", arrays)
    return [*header, {"halves": rounds}]


# Any: as `dump_parts` gives it.
def load_parts(header: list[dict[str, Any]], arrays: Arrays) -> Iterator[tuple[CanaryId, Parts]]:
    """The halves of a header and arrays, in the order in which they came."""
    *described, last = header
    halves = iter(load_rounds(last["halves"], "half_", arrays))
    for one in described:
        parts = Parts(one["received_unix_nano"])
        if one["outputs"]:
            (half,) = next(halves).values()
            parts.outputs = (half.origin, half.outputs)
        if one["states"]:
            (half,) = next(halves).values()
            assert half.states is not None
            parts.states = (half.origin, half.states)
        yield CanaryId(*one["id"]), parts


# Any: what JSON can hold.
def dump_open(rounds: Mapping[str, OpenRound], arrays: Arrays) -> list[Any]:
    """The header of rounds by number; their arrays are put among the others."""
    answers = dump_rounds([one.answers for one in rounds.values()], "open_", arrays)
    times = [[number, one.since_unix_nano, one.heard_unix_nano] for number, one in rounds.items()]
    return [times, answers]


# Any: as `dump_open` gives it.
def load_open(header: list[Any], arrays: Arrays) -> Iterator[tuple[str, OpenRound]]:
    """The rounds of a header and arrays, in the order in which they began."""
    times, described = header
    for (number, since, heard), answers in zip(times, load_rounds(described, "open_", arrays), strict=True):
        yield number, OpenRound(since, heard, dict(answers))


def _halves(found: CanaryId, parts: Parts) -> Iterator[Answer]:
    def half(origin: Origin, outputs: Outputs, states: States | None) -> Answer:
        return Answer(*found, parts.received_unix_nano, origin, outputs, states)

    if parts.outputs is not None:
        yield half(*parts.outputs, None)
    if parts.states is not None:
        origin, states = parts.states
        yield half(origin, _NO_OUTPUTS, states)
