"""Traffic and rounds of canaries in; references built of times in which nothing was the matter, out."""

import math
from collections import deque

from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.canary.standing import recent, silence
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.knowledge import Knowledge
from introspan_collector.detect.watch import NOT_CLEAN, Watch

_LOOK_SECONDS = 10.0
# Of log₁₀ of evidence over the ticket's threshold: below the first nothing is made of it; a rise beyond the second
# within so many looks, ten seconds apart or more, is not chance alone.
_FAINT = -3.0
_RISE = 0.5
_LOOKS = 6


class Growth:
    """Says what may be learnt from, and when a reference is made of it."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._looked: dict[Subject, float] = {}
        self._levels: dict[Subject, deque[float]] = {}
        self._deviating: set[str] = set()  # models whose canary deviates

    def is_healthy(self, subject: Subject) -> bool:
        """Whether nothing is the matter with a model and adapter, nor with the model that the adapter is on."""
        recoveries = self._knowledge.recoveries
        about = Subject(subject.model, "")
        return subject not in recoveries and about not in recoveries and subject.model not in self._deviating

    def against(self, model: str, now: float) -> str:
        """What canaries say against a model's traffic, in words: one deviates so that it matters, or none answers."""
        if not all(map(_is_equivalent, self._last_rounds(model, now))):
            return NOT_CLEAN
        return self._silence(model, now)

    def hear(self, finished: Round, now: float, *, moved: bool) -> bool:
        """Takes a round that was compared; moved: it deviates so that it matters. Whether all of the model are clean.

        A reference is frozen of traffic during all of which canaries were clean: what was collected is forgotten else.
        """
        if moved:
            for subject, watch in self._knowledge.watches.items():
                if subject.model == finished.model:
                    watch.doubt(finished.origin.fingerprint, now)
        clean = not any(map(_deviates, self._last_rounds(finished.model, now)))
        (self._deviating.discard if clean else self._deviating.add)(finished.model)
        return clean

    def look(self, now: float) -> Subject | None:
        """Looks at the watch not looked at for longest: its name where it has another reference now.

        At one only: fitting takes a second, and the log waits.
        """
        watches = self._knowledge.watches
        subject = min(watches, key=lambda one: self._looked.get(one, -math.inf), default=None)
        if subject is None or abs(now - self._looked.get(subject, -math.inf)) < _LOOK_SECONDS:
            return None
        self._looked[subject] = now
        rounds = self._last_rounds(subject.model, now)
        if not any(map(_deviates, rounds)):
            self._deviating.discard(subject.model)  # the replica that deviated may be gone
        is_suspect = subject in self._knowledge.recoveries or self._is_gathering(subject)
        if is_suspect and watches[subject].accepting is None:
            return None
        return subject if _grown(watches[subject], rounds, self._silence(subject.model, now), now) else None

    def _is_gathering(self, subject: Subject) -> bool:
        """Whether evidence has risen lately: it may become an alarm, and must not be learnt as healthy first."""
        level = max(self._knowledge.pieces.ticket.levels().get(subject, -math.inf), _FAINT)
        looks = self._levels.setdefault(subject, deque(maxlen=_LOOKS))
        looks.append(level)
        return level - min(looks) > _RISE

    def _last_rounds(self, model: str, now: float) -> list[Round]:
        """The last of each replica that was compared, but for those that are gone."""
        return [one for one in recent(self._knowledge.pieces.canaries.last(model), now) if one.comparison]

    def _silence(self, model: str, now: float) -> str:
        return silence(self._knowledge.pieces.canaries.last(model), now)


def _grown(watch: Watch, rounds: list[Round], silent: str, now: float) -> bool:
    # Nothing else says that another model is as good as the one before: without a canary, people do.
    fingerprint = "" if watch.served is None else watch.served.fingerprint
    compared = [one for one in rounds if one.origin.fingerprint == fingerprint]
    reference = watch.grow(
        now,
        canaries_clean=not any(map(_deviates, rounds)),
        silence=silent,
        may_succeed=bool(compared) and all(map(_is_equivalent, compared)),
    )
    return reference is not None


def _deviates(one: Round) -> bool:
    return one.comparison is not None and one.comparison.deviates


def _is_equivalent(one: Round) -> bool:
    return one.comparison is not None and (one.comparison.equivalent or not one.comparison.deviates)
