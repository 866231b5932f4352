"""Canary answers of all models in; rounds that were compared, and evidence from them, out."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from introspan_collector.detect import checkpoint
from introspan_collector.detect.canary.answer import Answer, Join
from introspan_collector.detect.canary.baseline import FEWEST_ROUNDS, Baseline, build
from introspan_collector.detect.canary.comparison import Comparison, compare
from introspan_collector.detect.canary.record import (
    Arrays,
    dump_baseline,
    dump_rounds,
    load_baseline,
    load_round,
    load_rounds,
)
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_collector.model import Batch, Origin
from introspan_collector.suite import NAMES

DISTANCE = "canary.distance"
"""What the stream of canary evidence is about."""

_WHAT = "canaries"
_VERSION = 2
_STATES_WAIT_NANO = 5_000_000_000
_ROUND_WAIT_NANO = 30_000_000_000
_OPEN_ROUNDS = 1024
_CHANCE = 0.01
_NO_STATES = (
    "the last answers came without the states inside the model, so that no layer can be named: give the server and "
    "whoever asks the same INTROSPAN_CANARY_KEY, and the server this collector's address"
)
_AGAIN_NANO = 60_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One round of one replica.

    suite: digest of all questions; questions: those that were answered; comparison: None while there is nothing to
    compare with; in_a_row: rounds that deviate, this one included.
    """

    model: str
    replica: str
    name: str
    origin: Origin
    time_unix_nano: int
    suite: str
    questions: tuple[str, ...]
    comparison: Comparison | None
    in_a_row: int

    @property
    def pages(self) -> bool:
        """Whether people are to be told at once: two rounds in a row deviate, and it matters to the answers."""
        return self.comparison is not None and self.in_a_row >= 2 and not self.comparison.equivalent


@dataclass(slots=True)
class _Open:
    since_unix_nano: int
    heard_unix_nano: int
    answers: dict[str, Answer] = field(default_factory=dict)


@dataclass(slots=True)
class _Model:
    """What is known of one model: its baseline, the rounds that are to become one, and the last round by replica."""

    baseline: Baseline | None = None
    gathered: list[Mapping[str, Answer]] = field(default_factory=list)
    last: dict[str, Round] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)  # rounds in a row that deviate, by replica
    again: dict[str, int] = field(default_factory=dict)  # until when a second round is waited for, by replica
    problem: str = ""


class Canaries:
    """Follows the canaries of at most `models` models. rounds: how many a baseline is built from."""

    def __init__(self, rounds: int = FEWEST_ROUNDS, models: int = 256, replicas: int = 1024) -> None:
        self._rounds = rounds
        self._limits = (models, replicas)
        self._join = Join()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._models: dict[str, _Model] = {}

    def consume(self, batch: Batch) -> None:
        """Takes the canary rows of a batch."""
        for answer in self._join.add(batch):
            self._put(answer)

    def advance(self, now_unix_nano: int) -> list[Round]:
        """The rounds that are complete, or have waited long enough, compared."""
        for answer in self._join.late(now_unix_nano - _STATES_WAIT_NANO):
            self._put(answer)
        for model in self._models.values():
            model.again = {replica: until for replica, until in model.again.items() if until > now_unix_nano}
        done = [
            number
            for number, found in self._open.items()
            if found.answers.keys() >= NAMES or found.heard_unix_nano < now_unix_nano - _ROUND_WAIT_NANO
        ]
        return [self._finish(number, self._open.pop(number), now_unix_nano) for number in done]

    def evidence(self, finished: Round) -> Evidence | None:
        """X = 1 where a round is further off than every one of the baseline, and than rounding explains.

        None where it was not compared, or with the baseline of another model: that a new model differs is no chance,
        and two rounds in a row say it. None too for one that is far off and equivalent: that is explained.
        """
        model, found = self._models[finished.model], finished.comparison
        if found is None or model.baseline is None or _identity(model.baseline) != _of(finished.origin):
            return None
        if found.deviates and found.equivalent:
            return None
        stream = Stream(finished.model, finished.replica, "", "canary", "", DISTANCE, -1, "high")
        return Evidence(
            (stream,),
            np.array([tail_bound(1, len(model.baseline.distances), _CHANCE)]),
            np.array([[float(found.ratio > model.baseline.rank_limit or found.deviates)]]),
            np.array([int(finished.name, 16)], np.uint64),
        )

    def wanted(self, model: str) -> bool:
        """Whether the canary should be asked again at once: a first round deviates and waits for a second."""
        found = self._models.get(model)
        return found is not None and bool(found.again)

    @property
    def foreign(self) -> int:
        """Rows of canaries of another version, which are compared with nothing."""
        return self._join.foreign

    def models(self) -> tuple[str, ...]:
        """Models that were heard of."""
        return tuple(self._models)

    def last(self) -> Iterator[Round]:
        """The last round of every replica."""
        for model in self._models.values():
            yield from model.last.values()

    def baseline(self, model: str) -> Baseline | None:
        """What the model's rounds are compared with."""
        found = self._models.get(model)
        return None if found is None else found.baseline

    def progress(self, model: str) -> tuple[int, int, str]:
        """Rounds gathered for the next baseline, rounds it takes, and what stands against a good one."""
        found = self._models.get(model)
        return (0, self._rounds, "") if found is None else (len(found.gathered), self._rounds, found.problem)

    def promote(self, model: str) -> None:
        """Makes the rounds gathered since the model changed its baseline. Raises ValueError for too few."""
        found = self._models.get(model)
        if found is None or not found.gathered:
            raise ValueError(
                f"model {model!r} has no rounds of canaries gathered for a new baseline: ask it first"
            )
        found.baseline = build(found.gathered, self._rounds)
        found.gathered = []
        for kept in (found.last, found.before, found.again):
            kept.clear()

    def snapshot(self) -> bytes:
        """Baselines, rounds that are to become one, and what came of the last; what is under way is asked again."""
        arrays: Arrays = {}
        header = []
        for i, (name, model) in enumerate(self._models.items()):
            known = None if model.baseline is None else dump_baseline(model.baseline, f"{i}_", arrays)
            rounds = dump_rounds(model.gathered, f"{i}_rounds_", arrays)
            last = [asdict(one) for one in model.last.values()]
            header.append([name, known, rounds, model.before, last])
        return checkpoint.dump(_WHAT, _VERSION, {"models": header}, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._models = {}
        for i, (name, known, rounds, in_a_row, last) in enumerate(header["models"]):
            self._models[name] = _Model(
                baseline=None if known is None else load_baseline(known, f"{i}_", arrays),
                gathered=load_rounds(rounds, f"{i}_rounds_", arrays),
                last={one["replica"]: Round(**load_round(one)) for one in last},
                before=in_a_row,
            )

    def _put(self, answer: Answer) -> None:
        # Not by replica: of an answer without states it is not known which one gave it.
        received = answer.received_unix_nano
        found = self._open.setdefault(answer.round, _Open(received, received))
        # A busy server may take half a minute for each question.
        found.heard_unix_nano = max(found.heard_unix_nano, received)
        found.answers[answer.prompt] = answer
        if len(self._open) > _OPEN_ROUNDS:
            self._open.popitem(last=False)

    def _finish(self, number: str, found: _Open, now_unix_nano: int) -> Round:
        origin = _origin(found.answers)
        name, replica = origin.model, origin.replica
        if name not in self._models and len(self._models) >= self._limits[0]:
            self._models.pop(next(iter(self._models)))
        model = self._models.setdefault(name, _Model())
        comparison, in_a_row = _compared(model.baseline, found.answers), 0
        if comparison is not None and comparison.deviates:
            in_a_row = 1 + model.before.get(replica, 0)
        suite = next(iter(found.answers.values())).suite
        last = Round(
            *(name, replica, number, origin, found.since_unix_nano, suite),
            *(tuple(sorted(found.answers)), comparison, in_a_row),
        )
        model.again.pop(replica, None)
        if len(model.last) < self._limits[1] or replica in model.last:
            model.last[replica], model.before[replica] = last, in_a_row
            if in_a_row == 1:
                model.again[replica] = now_unix_nano + _AGAIN_NANO
        if model.problem == _NO_STATES:
            model.problem = ""
        if _is_sound(found.answers):
            self._gather(model, last, found.answers)
        if not model.problem and not _has_states(found.answers):
            model.problem = _NO_STATES
        return last

    def _gather(self, model: _Model, last: Round, answers: Mapping[str, Answer]) -> None:
        """Keeps a whole round for the next baseline, if one is needed."""
        known, has_states = model.baseline, _has_states(answers)
        if known is not None and known.suite != last.suite:
            known = None  # other questions were asked, which say nothing of these
        if known is not None and (
            _identity(known) == _of(last.origin) or (known.layer_count and not has_states)
        ):
            return
        if model.gathered and _of(_origin(model.gathered[0])) != _of(last.origin):
            if not has_states and _has_states(model.gathered[0]):
                return  # states that were lost on the way make no other model
            model.gathered = []  # the model has changed again
        model.gathered.append(answers)
        if len(model.gathered) < self._rounds:
            return
        model.gathered = model.gathered[-self._rounds :]
        # A model that answers differently never inherits: people promote its baseline, or resolve what changed.
        if last.comparison is not None and last.comparison.deviates and not last.comparison.equivalent:
            return
        try:
            model.baseline, model.gathered, model.problem = build(model.gathered, self._rounds), [], ""
        except ValueError as error:
            model.problem = str(error)


def _compared(baseline: Baseline | None, answers: Mapping[str, Answer]) -> Comparison | None:
    """The comparison, None where there is nothing to compare with, or nothing of it was answered."""
    if baseline is None or next(iter(answers.values())).suite != baseline.suite:
        return None
    try:
        return compare(baseline, answers)
    except ValueError:
        return None  # the only answers are to questions that were made of others which are missing or differ


def _has_states(answers: Mapping[str, Answer]) -> bool:
    return any(answer.states is not None for answer in answers.values())


def _is_sound(answers: Mapping[str, Answer]) -> bool:
    """Whether a round can be part of a baseline: whole, of one model, and finite."""
    measured = [answer for answer in answers.values() if answer.states is not None]
    return (
        answers.keys() >= NAMES
        and len(measured) in (0, len(answers))
        and len({_of(answer.origin) for answer in answers.values()}) == 1
        and not any(answer.states.nonfinite for answer in measured if answer.states is not None)
    )


def _origin(answers: Mapping[str, Answer]) -> Origin:
    """Who answered: a worker where any is known."""
    known = [answer.origin for answer in answers.values() if answer.states is not None]
    return known[0] if known else next(iter(answers.values())).origin


def _of(origin: Origin) -> tuple[str, str, str]:
    return origin.fingerprint, origin.engine_version, origin.dtype


def _identity(baseline: Baseline) -> tuple[str, str, str]:
    return baseline.fingerprint, baseline.engine_version, baseline.dtype
