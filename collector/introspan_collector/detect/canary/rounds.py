"""Canary answers of all models in; rounds that were compared, and evidence from them, out."""

from collections import OrderedDict

import numpy as np

from introspan_collector.detect import checkpoint
from introspan_collector.detect.canary.answer import Answer, Join
from introspan_collector.detect.canary.baseline import FEWEST_ROUNDS, Baseline
from introspan_collector.detect.canary.followed import (
    NO_STATES,
    Followed,
    compared,
    has_states,
    identity_of,
    is_sound,
    load,
    origin_of,
)
from introspan_collector.detect.canary.record import Arrays
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.canary.underway import (
    OpenRound,
    dump_open,
    dump_parts,
    load_open,
    load_parts,
)
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_collector.model import Batch
from introspan_collector.suite import NAMES

DISTANCE = "canary.distance"
"""What the stream of canary evidence is about."""

_WHAT = "canaries"
_VERSION = 5
# A worker has them within a second; its first connection to the collector, and a busy machine, may take longer.
_STATES_WAIT_NANO = 15_000_000_000
_ROUND_WAIT_NANO = 30_000_000_000
_OPEN_ROUNDS = 1024
_CHANCE = 0.01
_SIDES = ("high", "largest")
_AGAIN_NANO = 60_000_000_000
_MOST_LOST = 3
_DAY_NANO = 86_400_000_000_000


class Canaries:
    """Follows the canaries of at most `models` models. rounds: how many a baseline is built from."""

    def __init__(self, rounds: int = FEWEST_ROUNDS, models: int = 256, replicas: int = 1024) -> None:
        self._rounds = rounds
        self._limits = (models, replicas)
        self._join = Join()
        self._open: OrderedDict[str, OpenRound] = OrderedDict()
        self._models: dict[str, Followed] = {}

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

        By all of its numbers together (side "high"), which tells many small shifts, and by the largest of its distances
        ("largest"), which tells one that is lost among others. None where it was not compared, or with the baseline of
        another model: that a new model differs is no chance, and two rounds in a row say it. None too for one that is
        far off and equivalent: that is explained.
        """
        found, limits = finished.comparison, (finished.rank_limit, finished.largest_limit)
        if found is None or None in limits or (found.deviates and found.equivalent):
            return None
        who = (finished.model, finished.replica, "", "canary", "", DISTANCE, -1)
        beyond = np.array([found.ratio, found.distance]) > np.array(limits, np.float64)
        return Evidence(
            tuple(Stream(*who, side) for side in _SIDES),
            np.full(len(_SIDES), tail_bound(1, finished.baseline_rounds, _CHANCE / len(_SIDES))),
            (beyond | found.deviates).astype(np.float64)[None],
            np.array([int(finished.name, 16)], np.uint64),
        )

    def wanted(self, model: str) -> bool:
        """Whether the canary should be asked again at once: a first round deviates, or its states were lost."""
        found = self._models.get(model)
        return found is not None and bool(found.again)

    @property
    def foreign(self) -> int:
        """Rows of canaries of another version, which are compared with nothing."""
        return self._join.foreign

    def models(self) -> tuple[str, ...]:
        """Models that were heard of."""
        return tuple(self._models)

    def last(self, model: str) -> list[Round]:
        """The last round of every replica of a model."""
        found = self._models.get(model)
        return [] if found is None else list(found.last.values())

    def sweep(self) -> None:
        """Forgets replicas that have answered nothing in the day before the model's last round: they are gone."""
        for model in self._models.values():
            newest = max((one.time_unix_nano for one in model.last.values()), default=0)
            for replica, one in list(model.last.items()):
                if newest - one.time_unix_nano > _DAY_NANO:
                    model.forget(replica)

    def baseline(self, model: str) -> Baseline | None:
        """What the model's rounds are compared with."""
        found = self._models.get(model)
        return None if found is None else found.baseline

    def progress(self, model: str) -> tuple[int, int, str]:
        """Rounds gathered for the next baseline, rounds it takes, and what stands against a good one."""
        found = self._models.get(model)
        if found is None:
            return 0, self._rounds, ""
        return len(found.gathered or found.bare), self._rounds, found.problem

    def promote(self, model: str) -> None:
        """Makes the rounds gathered since the model changed its baseline. Raises ValueError for too few."""
        found = self._models.get(model)
        if found is None or not (found.gathered or found.bare):
            raise ValueError(
                f"model {model!r} has no rounds of canaries gathered for a new baseline: ask it first"
            )
        found.promote()

    def snapshot(self) -> bytes:
        """Baselines, rounds that are to become one, what came of the last, and what is under way."""
        arrays = Arrays()
        models = [[name, model.dump(f"{i}_", arrays)] for i, (name, model) in enumerate(self._models.items())]
        under_way = {"parts": dump_parts(self._join.parts, arrays), "open": dump_open(self._open, arrays)}
        return checkpoint.dump(_WHAT, _VERSION, {"models": models, **under_way}, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._models = {
            name: load(known, f"{i}_", arrays, self._rounds)
            for i, (name, known) in enumerate(header["models"])
        }
        self._join.parts = OrderedDict(load_parts(header["parts"], arrays))
        self._open = OrderedDict(load_open(header["open"], arrays))

    def _put(self, answer: Answer) -> None:
        # Not by replica: of an answer without states it is not known which one gave it.
        received = answer.received_unix_nano
        found = self._open.setdefault(answer.round, OpenRound(received, received))
        # A busy server may take half a minute for each question.
        found.heard_unix_nano = max(found.heard_unix_nano, received)
        found.answers[answer.prompt] = answer
        if len(self._open) > _OPEN_ROUNDS:
            self._open.popitem(last=False)

    def _finish(self, number: str, found: OpenRound, now_unix_nano: int) -> Round:
        answers, origin = found.answers, origin_of(found.answers)
        if origin.model not in self._models and len(self._models) >= self._limits[0]:
            self._models.pop(next(iter(self._models)))
        model = self._models.setdefault(origin.model, Followed(self._rounds))
        replica = model.name(answers)
        yardstick = model.yardstick(replica, answers)
        comparison, in_a_row = compared(yardstick, answers), 0
        if comparison is not None and comparison.deviates:
            in_a_row = 1 + model.before.get(replica, 0)
        # Of fewer questions chance makes more of a distance than of those that healthy rounds were ranked by.
        is_like = (
            yardstick is not None
            and yardstick.identity == identity_of(origin)
            and yardstick.questions.keys() <= answers.keys()
        )
        last = Round(
            *(origin.model, replica, number, origin, found.since_unix_nano),
            *(next(iter(answers.values())).suite, tuple(sorted(answers)), comparison, in_a_row),
            rank_limit=yardstick.rank_limit if yardstick is not None and is_like else None,
            baseline_rounds=0 if yardstick is None else len(yardstick.distances),
            is_own=yardstick is None or yardstick.replicas == (replica,),
            largest_limit=yardstick.largest_limit if yardstick is not None and is_like else None,
        )
        self._keep(model, last, answers, now_unix_nano)
        if model.problem == NO_STATES:
            model.problem = ""
        if is_sound(answers):
            model.gather(last, answers)
        if not model.problem and not has_states(answers):
            model.problem = NO_STATES
        return last

    def _keep(self, model: Followed, last: Round, answers: dict[str, Answer], now_unix_nano: int) -> None:
        replica = last.replica
        model.again.pop(replica, None)
        if len(model.last) >= self._limits[1] and replica not in model.last:
            return
        model.last[replica], model.before[replica] = last, last.in_a_row
        is_lost = not has_states(answers) and any(answer.signed for answer in answers.values())
        model.lost[replica] = 1 + model.lost.get(replica, 0) if is_lost else 0
        if last.in_a_row == 1 or 0 < model.lost[replica] <= _MOST_LOST:
            model.again[replica] = now_unix_nano + _AGAIN_NANO
