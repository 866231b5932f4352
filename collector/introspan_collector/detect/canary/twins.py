"""Answers in which one token was computed in two ways in; how far apart its states are out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.measured import states_of
from introspan_collector.detect.canary.place import length
from introspan_collector.suite import QUESTIONS


@dataclass(frozen=True, slots=True)
class Twin:
    """A question whose first state is the same token's as that of another question, at its row."""

    of: str
    row: int


# What was repeated has the same last prompt token, what was extended ends with the last token generated before.
TWINS = {
    question.name: Twin(question.of, int(question.source == "extend"))
    for question in QUESTIONS
    if question.source in ("repeat", "extend")
}


def twin_distance(answers: Mapping[str, Answer], name: str, depth: int) -> NDArray[np.float64]:
    """How far apart [depth] the states of a token are that was computed in two ways; 0 where not measured."""
    twin = TWINS[name]
    first, second = (states_of(answers[one], depth) for one in (twin.of, name))
    return length(first[twin.row] - second[0])


def twin_distances(rounds: Sequence[Mapping[str, Answer]], name: str, depth: int) -> NDArray[np.float64]:
    """The same of many rounds, [rounds, depth]."""
    return np.stack([twin_distance(answers, name, depth) for answers in rounds])
