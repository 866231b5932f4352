"""Finished rounds of canaries in; what they are evidence of, what incidents are told of them, and pages, out."""

import math
from typing import NamedTuple

from introspan_collector.detect.announcer import Announcer
from introspan_collector.detect.canary.comparison import Comparison
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.growth import Growth
from introspan_collector.detect.incident.finding import Finding, Subject
from introspan_collector.detect.incident.reconsider import CanaryReport
from introspan_collector.detect.incident.triage import Canary
from introspan_collector.detect.knowledge import Knowledge
from introspan_collector.detect.rules import canary_finding

_CLEAN_ROUNDS = 10


class Judged(NamedTuple):
    """What comes of a round. finding: what people are told at once; requests: for how many healthy ones it stands."""

    finding: Finding | None = None
    requests: int = 0


class Rounds:
    """Judges rounds. quiet_requests: after so many without an alarm an incident is over."""

    def __init__(
        self, knowledge: Knowledge, growth: Growth, announcer: Announcer, quiet_requests: int
    ) -> None:
        self._knowledge = knowledge
        self._growth = growth
        self._announcer = announcer
        self._quiet_requests = quiet_requests

    def judge(self, finished: Round, now: float) -> Judged:
        """What comes of a round that has just finished."""
        self._announcer.answered(finished.model, _began(finished))
        found = finished.comparison
        if found is None:
            return Judged()
        pieces = self._knowledge.pieces
        evidence = pieces.canaries.evidence(finished)
        if evidence is not None:
            self._knowledge.add((evidence,))
        moved = found.deviates and not found.equivalent
        clean = self._growth.hear(finished, now, moved=moved)
        self._announcer.announce(pieces.incidents.hear(_report(finished, found, moved=moved), now))
        requests = 0
        if clean and self._is_of_canaries(Subject(finished.model, "")):
            # Where there is no traffic, clean rounds stand for it: else an incident of a canary would never end.
            requests = math.ceil(self._quiet_requests / _CLEAN_ROUNDS)
        return Judged(canary_finding(finished, found, now) if finished.pages else None, requests)

    def _is_of_canaries(self, subject: Subject) -> bool:
        """Whether an incident is open whose evidence is that of canaries alone."""
        opened = [one for one in self._knowledge.pieces.incidents.open() if one.subject == subject]
        about = {clue.stream.detector for one in opened for clue in one.evidence}
        return bool(about) and about <= {"canary", "consistency"}


def _report(finished: Round, found: Comparison, *, moved: bool) -> CanaryReport:
    state = Canary.MOVED if moved else Canary.STILL
    return CanaryReport(
        finished.model, finished.replica, state, _began(finished), found.place if moved else ""
    )


def _began(finished: Round) -> float:
    # Not now: rounds of the log may be read again after a restart.
    return finished.time_unix_nano / 1e9
