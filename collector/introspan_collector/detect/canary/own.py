"""Rounds of instances and ranks that share a model's baseline in; a baseline of each one's own out.

Where several are asked, the model's baseline is of rounds of all of them. Machines that round differently are then
further off than their own rounds are from each other: chance looks larger than it is, and its bound is that of the
mixture. So each gathers its own, a few at a time, and is compared with the model's until then.
"""

from collections import OrderedDict
from collections.abc import Mapping

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.baseline import Baseline, build

_AT_ONCE = 2
"""So many gather at a time: the rounds of one may have 20 MB, which are saved with everything else."""

_MOST = 64
_SILENT_ROUNDS = 10
_SHORTEST_NANO = 60_000_000_000
_DAY_NANO = 86_400_000_000_000

Rounds = list[Mapping[str, Answer]]


class OwnBaselines:
    """Those of one model. rounds: how many one is built from."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.baselines: OrderedDict[str, Baseline] = OrderedDict()
        """By replica; the one used last is the last."""
        self.gathering: dict[str, Rounds] = {}
        """By replica."""

    def of(self, replica: str, like: Baseline) -> Baseline | None:
        """A replica's own, None where there is none of the same model and questions as the one it shares."""
        found = self.baselines.get(replica)
        if found is None or found.suite != like.suite or found.identity != like.identity:
            return None
        self.baselines.move_to_end(replica)
        return found

    def gather(self, replica: str, answers: Mapping[str, Answer]) -> None:
        """Takes a whole round that is as it should be of a replica that has none of its own."""
        if replica not in self.gathering and not self._has_room(received(answers)):
            return
        rounds = self.gathering.setdefault(replica, [])
        rounds.append(answers)
        if len(rounds) < self._rounds:
            return
        try:
            self.baselines[replica] = build(rounds[-self._rounds :], self._rounds)
        except ValueError:
            # One round that disagrees with the others passes in time; the shared baseline holds until then.
            self.gathering[replica] = rounds[1 - self._rounds :]
            return
        del self.gathering[replica]
        while len(self.baselines) > _MOST:
            self.baselines.popitem(last=False)

    def clear(self) -> None:
        """Forgets all of them: another model is the healthy one now."""
        self.baselines.clear()
        self.gathering.clear()

    def _has_room(self, now_unix_nano: int) -> bool:
        """Whether another may gather: whoever is asked no longer gives way."""
        for replica, rounds in list(self.gathering.items()):
            first, last = received(rounds[0]), received(rounds[-1])
            usual = (last - first) // (len(rounds) - 1) if len(rounds) > 1 else _DAY_NANO
            if now_unix_nano - last > _SILENT_ROUNDS * max(usual, _SHORTEST_NANO):
                del self.gathering[replica]
        return len(self.gathering) < _AT_ONCE


def received(answers: Mapping[str, Answer]) -> int:
    """When the last of a round's answers came, in Unix nanoseconds."""
    return max(answer.received_unix_nano for answer in answers.values())
