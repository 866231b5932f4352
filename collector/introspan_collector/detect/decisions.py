"""What people decide in — accept, promote, adopt — and everything that follows from it out."""

from collections.abc import Callable, Iterable

from introspan_collector.detect.announcer import Announcer
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.incident.incident import Acknowledgement
from introspan_collector.detect.incident.incidents import Change, Event
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.knowledge import Knowledge
from introspan_collector.detect.live import reprefill
from introspan_collector.detect.live.yardstick import DETECTORS
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.watch import Watch


class Decisions:
    """Carries out what is decided about references, baselines and incidents. Raises ValueError with a remedy.

    canaries: what they say against a model's traffic, "" for nothing.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        announcer: Announcer,
        subject_limit: int,
        clock: Callable[[], float],
        canaries: Callable[[str], str],
    ) -> None:
        self._knowledge = knowledge
        self._announcer = announcer
        self._subject_limit = subject_limit
        self._clock = clock
        self._canaries = canaries
        self.unsaved = False
        """Whether something was decided, which is in no log, since the state was last saved."""

    def announce(self, window: Window) -> None:
        """Records a deploy."""
        self.unsaved = True
        self._knowledge.pieces.incidents.announce(window, self._clock())

    def withdraw(self, id_: str) -> None:
        """Forgets an announced deploy."""
        self.unsaved = True
        self._knowledge.pieces.incidents.withdraw(id_)

    def acknowledge(self, id_: str, acknowledgement: Acknowledgement, *, force: bool) -> str:
        """Records who looks after an incident; what is done where it is accepted as healthy, in words.

        Where another model's reference would be promoted and something speaks against it, nothing is recorded unless
        it is forced.
        """
        incidents = self._knowledge.pieces.incidents
        found = incidents.find(id_) if acknowledgement.accept_as_class else None
        if found is not None and (watch := self._successor(found.subject)) is not None:
            watch.doubts(self._canaries(found.subject.model), force=force)
        self.unsaved = True
        event = incidents.acknowledge(id_, acknowledgement)
        self._announcer.announce([event])
        return self._accept(event.incident.subject, force=force) if acknowledgement.accept_as_class else ""

    def promote(self, subject: Subject, *, force: bool) -> Reference:
        """Makes what was collected last the frozen reference, if nothing speaks against it or it is forced."""
        watch = self._knowledge.watch(subject)
        reference = watch.promote(self._clock(), self._canaries(subject.model), force=force)
        self.take_up(subject, self._clock())
        return reference

    def adopt(self, reference: Reference) -> None:
        """Compares with a reference from elsewhere."""
        identity = reference.identity
        subject = Subject(identity.model, identity.adapter)
        watches = self._knowledge.watches
        watch = watches.get(subject)
        served = None if watch is None else watch.served
        if served is not None and (differences := identity.differences(served)):
            raise ValueError(
                f"reference is not of what is served: {'; '.join(differences)}; import one of this model, "
                "or build one"
            )
        if watch is None and len(watches) >= self._subject_limit:
            raise ValueError(
                f"{len(watches)} models and adapters are watched, as many as detect.subject_limit: raise it"
            )
        watches.setdefault(subject, Watch(self._knowledge.limits)).adopt(reference)
        self.take_up(subject, self._clock())

    def promote_canary(self, model: str) -> None:
        """Makes the rounds gathered since a model changed its baseline."""
        self.unsaved = True
        knowledge = self._knowledge
        incidents = knowledge.pieces.incidents
        knowledge.pieces.canaries.promote(model)
        self._announcer.ask(model)
        knowledge.pieces.roster.drop(model, "", ("canary",))
        knowledge.follow()
        subject = Subject(model, "")
        opened = (one for one in incidents.open() if one.subject == subject)
        about = {clue.stream.detector for one in opened for clue in one.evidence}
        if about <= {"canary", "consistency"}:
            knowledge.recoveries.pop(subject, None)
            self._announcer.announce(incidents.promote(subject, "the canary's baseline", self._clock()))

    def take_up(self, subject: Subject, now: float) -> None:
        """Has everything follow from a subject's new reference: old evidence is about the old one."""
        self.unsaved = True
        knowledge = self._knowledge
        detectors: tuple[str, ...] = DETECTORS
        if self._is_about(subject, reprefill.DETECTOR):
            # What decoding and prefilling differ by is part of what is healthy from now on.
            knowledge.pieces.reprefill.forget(*subject)
            detectors = (*detectors, reprefill.DETECTOR)
        knowledge.pieces.roster.drop(*subject, detectors)
        knowledge.follow()
        knowledge.recoveries.pop(subject, None)
        knowledge.exemplars.pop(subject, None)
        content_hash = knowledge.watches[subject].content_hash
        self._announcer.announce(knowledge.pieces.incidents.promote(subject, content_hash, now))

    def _is_about(self, subject: Subject, detector: str) -> bool:
        """Whether an incident is open with evidence of this detector."""
        opened = (one for one in self._knowledge.pieces.incidents.open() if one.subject == subject)
        return any(clue.stream.detector == detector for one in opened for clue in one.evidence)

    def reconsider(self, events: Iterable[Event]) -> None:
        """Learns no longer what was accepted, where that is over or has become something worse."""
        for event in events:
            watch = self._knowledge.watches.get(event.incident.subject)
            if watch is not None and event.change in (Change.ESCALATED, Change.RESOLVED):
                watch.decline()

    def _successor(self, subject: Subject) -> Watch | None:
        """The watch of a model and adapter of which another reference could take the present one's place now."""
        watch = self._knowledge.watches.get(subject)
        building = () if watch is None else watch.building()
        present = None if watch is None else watch.reference
        is_another = bool(building) and present is not None and building[-1].identity != present.identity
        return watch if is_another and building[-1].progress.reached is not None else None

    def _accept(self, subject: Subject, *, force: bool) -> str:
        """Learns what is served as healthy, by whichever way there is."""
        watch = self._knowledge.watches.get(subject)
        if watch is None:
            return (
                f"nothing is learnt: no request of {subject} was seen, so that there is no reference to widen"
            )
        if self._successor(subject) is not None:
            self.promote(subject, force=force)
            return "the reference that was being built of what is served now was promoted"
        more = watch.accept()
        return (
            f"requests enter the next reference from now on; it is taken up after {more} more clusters, "
            "once canaries are clean, and ends the incident"
        )
