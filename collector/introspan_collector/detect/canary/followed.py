"""Whole rounds of one model in; the baselines that they are compared with, and those that follow, out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.baseline import Baseline, build
from introspan_collector.detect.canary.comparison import Comparison, compare
from introspan_collector.detect.canary.names import Names
from introspan_collector.detect.canary.own import OwnBaselines, Rounds, received
from introspan_collector.detect.canary.record import (
    Arrays,
    dump_baseline,
    dump_rounds,
    load_baseline,
    load_round,
    load_rounds,
)
from introspan_collector.detect.canary.round import Round
from introspan_collector.model import Origin
from introspan_collector.suite import NAMES

NO_STATES = (
    "the last answers came without the states inside the model, so that no layer can be named: give the server and "
    "whoever asks the same INTROSPAN_CANARY_KEY, and the server this collector's address"
)
_LOST_NANO = 600_000_000_000
"""So long must nothing but answers without states come where they were to come, before those are all there is."""


@dataclass(slots=True)
class Followed:
    """What is known of one model. needed: rounds that a baseline is built from.

    baseline: of all instances and ranks together; own: of each that has one. gathered: rounds that are to become the
    next baseline; bare: those without states, while none with states has come. By instance and rank: last, the last
    round; before, rounds in a row that deviate; again, until when a second round is waited for; lost, rounds in a
    row whose states did not come.
    """

    needed: int
    baseline: Baseline | None = None
    gathered: Rounds = field(default_factory=list)
    bare: Rounds = field(default_factory=list)
    bare_since_unix_nano: int = 0
    own: OwnBaselines = field(init=False)
    names: Names = field(default_factory=Names)
    last: dict[str, Round] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    def __post_init__(self) -> None:
        self.own = OwnBaselines(self.needed)

    def name(self, answers: Mapping[str, Answer]) -> str:
        """The instance and rank that gave a round; whatever was kept of it under its address is forgotten."""
        first, origin = next(iter(answers.values())), origin_of(answers)
        asked = first.asked or origin.replica
        if not has_states(answers):
            return self.names.at(asked)
        self.names.hear(asked, origin.replica, first.received_unix_nano)
        if asked != origin.replica:
            self.forget(asked)
        return origin.replica

    def forget(self, replica: str) -> None:
        """Forgets the rounds of an instance and rank."""
        for kept in (self.last, self.before, self.again, self.lost):
            kept.pop(replica, None)

    def yardstick(self, replica: str, answers: Mapping[str, Answer]) -> Baseline | None:
        """What a round is compared with: its replica's own baseline, or the one it shares; None where none fits."""
        shared = self.baseline
        if shared is None or next(iter(answers.values())).suite != shared.suite:
            return None
        return self.own.of(replica, shared) or shared

    def gather(self, last: Round, answers: Mapping[str, Answer]) -> None:
        """Keeps a whole and sound round for the next baseline, if one is needed."""
        if not has_states(answers):
            self._gather_bare(answers)
            return
        self.bare = []
        known, identity = self.baseline, identity_of(last.origin)
        if known is not None and known.suite == last.suite and known.identity == identity:
            is_alone = known.replicas == (last.replica,) or last.replica in self.own.baselines
            if not is_alone and is_as_good(last.comparison):
                self.own.gather(last.replica, answers)
            return
        if self.gathered and identity_of(origin_of(self.gathered[0])) != identity:
            self.gathered = []  # the model has changed again
        self.gathered = [*self.gathered, answers][-self.needed :]
        self._succeed(self.gathered, last.comparison)

    def promote(self) -> None:
        """Makes the rounds gathered since the model changed its baseline. Raises ValueError for too few."""
        self.baseline = build(self.gathered or self.bare, self.needed)
        self._begin_anew()
        for kept in (self.last, self.before, self.again, self.lost):
            kept.clear()

    def _gather_bare(self, answers: Mapping[str, Answer]) -> None:
        """Keeps a round without states apart: a baseline of outputs alone is for models that have no states to give."""
        known, first = self.baseline, next(iter(answers.values()))
        if known is not None and known.suite == first.suite:
            return
        if self.gathered and first.received_unix_nano - received(self.gathered[-1]) < _LOST_NANO:
            return
        if not self.bare:
            self.bare_since_unix_nano = first.received_unix_nano
        self.bare = [*self.bare, answers][-self.needed :]
        if not first.signed or first.received_unix_nano - self.bare_since_unix_nano >= _LOST_NANO:
            self._succeed(self.bare, None)

    def _succeed(self, rounds: Rounds, comparison: Comparison | None) -> None:
        # A model that answers differently never inherits: people promote its baseline, or resolve what changed.
        if len(rounds) < self.needed or not is_as_good(comparison):
            return
        try:
            self.baseline = build(rounds, self.needed)
        except ValueError as error:
            self.problem = str(error)
            return
        self.problem = ""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.gathered, self.bare = [], []
        self.own.clear()

    # Any: what JSON can hold.
    def dump(self, prefix: str, arrays: Arrays) -> dict[str, Any]:
        """The header; arrays are put among the others under names that begin with prefix."""
        baselines = {"": self.baseline, **self.own.baselines}
        rounds = {"gathered": self.gathered, "bare": self.bare}
        return {
            "baselines": {
                name: dump_baseline(one, f"{prefix}{i}_", arrays)
                for i, (name, one) in enumerate(baselines.items())
                if one is not None
            },
            "rounds": {name: dump_rounds(one, f"{prefix}{name}_", arrays) for name, one in rounds.items()},
            "gathering": {
                name: dump_rounds(one, f"{prefix}own{i}_", arrays)
                for i, (name, one) in enumerate(self.own.gathering.items())
            },
            "bare_since_unix_nano": self.bare_since_unix_nano,
            "names": self.names.dump(),
            "before": self.before,
            "lost": self.lost,
            "again": self.again,
            "last": [asdict(one) for one in self.last.values()],
        }


# Any: as `dump` gives it.
def load(header: dict[str, Any], prefix: str, arrays: Arrays, needed: int) -> Followed:
    """What was dumped."""
    names = Names({address: dict(known) for address, known in header["names"].items()})
    last = {one["replica"]: Round(**load_round(one)) for one in header["last"]}
    kept = {key: header[key] for key in ("before", "lost", "again")}
    followed = Followed(needed, names=names, last=last, **kept)
    followed.gathered, followed.bare = (
        load_rounds(header["rounds"][name], f"{prefix}{name}_", arrays) for name in ("gathered", "bare")
    )
    followed.bare_since_unix_nano = header["bare_since_unix_nano"]
    # The place of the shared one is kept where there is none.
    shift = 0 if "" in header["baselines"] else 1
    for i, (name, known) in enumerate(header["baselines"].items(), shift):
        baseline = load_baseline(known, f"{prefix}{i}_", arrays)
        if name:
            followed.own.baselines[name] = baseline
        else:
            followed.baseline = baseline
    for i, (name, rounds) in enumerate(header["gathering"].items()):
        followed.own.gathering[name] = load_rounds(rounds, f"{prefix}own{i}_", arrays)
    return followed


def compared(baseline: Baseline | None, answers: Mapping[str, Answer]) -> Comparison | None:
    """The comparison, None where there is nothing to compare with, or nothing of it was answered."""
    if baseline is None:
        return None
    try:
        return compare(baseline, answers)
    except ValueError:
        return None  # the only answers are to questions that were made of others which are missing or differ


def has_states(answers: Mapping[str, Answer]) -> bool:
    """Whether the engine's worker sent any."""
    return any(answer.states is not None for answer in answers.values())


def is_as_good(comparison: Comparison | None) -> bool:
    """Whether nothing speaks against a round: it does not deviate, or not so that it matters."""
    return comparison is None or not comparison.deviates or comparison.equivalent


def is_sound(answers: Mapping[str, Answer]) -> bool:
    """Whether a round can be part of a baseline: whole, of one model, and finite."""
    measured = [answer for answer in answers.values() if answer.states is not None]
    return (
        answers.keys() >= NAMES
        and len(measured) in (0, len(answers))
        and len({identity_of(answer.origin) for answer in answers.values()}) == 1
        and not any(answer.states.nonfinite for answer in measured if answer.states is not None)
    )


def origin_of(answers: Mapping[str, Answer]) -> Origin:
    """Who answered: a worker where any is known."""
    known = [answer.origin for answer in answers.values() if answer.states is not None]
    return known[0] if known else next(iter(answers.values())).origin


def identity_of(origin: Origin) -> tuple[str, str, str]:
    """What a worker serves: fingerprint, version of the engine, element type."""
    return origin.fingerprint, origin.engine_version, origin.dtype
