"""What is known of one fault of one model: its evidence, its state and what people did about it."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from introspan_collector.detect.incident.finding import Copy, Exemplar, Finding, Subject
from introspan_collector.detect.incident.triage import Triage, Verdict
from introspan_collector.detect.sequential.alarm import Carrier
from introspan_collector.detect.sequential.evidence import OUTSIDE, Stream
from introspan_collector.notice import Severity

DAY_SECONDS = 86_400.0
_NEVER_IN_HEALTH = frozenset({"output.nonfinite", "residual.nonfinite", "sampler.greedy_mismatch"})


class State(StrEnum):
    """Whether anybody has to do anything."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Clue:
    """What one stream has shown since the incident began.

    level: the highest log₁₀ of evidence over threshold of an alarm that it carried, at most 300; share: its part of
    that alarm; false_alarm_seconds: the stated mean time between false alarms, None where no rate applies.
    """

    stream: Stream
    copy: Copy
    level: float
    share: float
    false_alarm_seconds: float | None
    first_unix_seconds: float
    last_unix_seconds: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who looked at an incident. accept_as_class: what raised it is to be learnt as a class of healthy requests."""

    by: str
    comment: str
    time_unix_seconds: float
    accept_as_class: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """Everything that is known of one fault; one is open for a model and adapter at a time.

    maintenance is the reason of the announced deploy it began in, "" for none, and notified whether people are told.
    replicas: those where it was seen; singled_out: those that differ from the others.
    """

    id: str
    alertname: str
    subject: Subject
    severity: Severity
    state: State
    opened_unix_seconds: float
    updated_unix_seconds: float
    triage: Triage
    evidence: tuple[Clue, ...]
    exemplars: tuple[Exemplar, ...]
    replicas: tuple[str, ...]
    singled_out: tuple[str, ...]
    layer: str
    reference: str
    maintenance: str
    notified: bool
    unlisted_clues: int = 0
    """Streams that raised an alarm beyond the number that an incident lists."""
    asked_unix_seconds: float | None = None
    """When a canary was asked for the triage and has not answered yet."""
    acknowledgement: Acknowledgement | None = None
    resolved_unix_seconds: float | None = None
    resolution: str = ""

    @property
    def guarantee(self) -> str:
        """What the alarm promises of false ones, in one sentence."""
        rates = [clue.false_alarm_seconds for clue in self.evidence if clue.false_alarm_seconds is not None]
        if any(clue.stream.signal in _NEVER_IN_HEALTH for clue in self.evidence):
            return "A healthy server never shows this: no rate of false alarms applies."
        if not rates:
            return "No rate of false alarms is stated for this evidence: it does not come from the sequential test."
        days = max(rates) / DAY_SECONDS
        return (
            f"Expected at most one false alarm in {days:g} {'day' if days == 1 else 'days'}"
            " over everything this collector watches."
        )


_ALERTNAMES = {
    "canary": "IntrospanCanaryDeviates",
    "classes": "IntrospanTrafficShifted",
    "consistency": "IntrospanConsistencyFails",
    "nonfinite": "IntrospanOutputNotFinite",
    "replicas": "IntrospanReplicaDeviates",
    "reprefill": "IntrospanConsistencyFails",
    "sampler": "IntrospanSamplerDeviates",
}
_OTHER_ALERTNAME = "IntrospanRequestsDeviate"
ALERTNAMES = (*dict.fromkeys(_ALERTNAMES.values()), _OTHER_ALERTNAME)
"""Every name an alert can have; the runbook has a heading for each."""


def alertname(stream: Stream) -> str:
    """The name of an alert that this stream opened: what was seen, not what is the matter."""
    detector = "classes" if stream.signal == OUTSIDE else stream.detector
    return _ALERTNAMES.get(detector, _OTHER_ALERTNAME)


def _names_it(carriers: tuple[Carrier, ...]) -> Stream:
    """The stream that names what was seen: the strongest, but for "unusual in some signal", which names nothing."""
    specific = [
        carrier for carrier in carriers if carrier.stream.signal or carrier.stream.detector != "extremes"
    ]
    return max(specific or carriers, key=lambda carrier: carrier.share).stream


def _incident_id(subject: Subject, book: str, number: int) -> str:
    """16 hexadecimal digits, the same when the log is read again after a crash: whoever was told knows it already."""
    text = "\0".join((*subject, book, str(number)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def opened(
    subject: Subject, finding: Finding, now_unix_seconds: float, maintenance: str, book: str, number: int
) -> Incident:
    """A new incident, without evidence yet; nobody is told of it during maintenance.

    book and number: whose incident it is, and how many have begun there.
    """
    return Incident(
        id=_incident_id(subject, book, number),
        alertname=alertname(_names_it(finding.alarm.carriers)),
        subject=subject,
        severity=Severity.CRITICAL if finding.copy is Copy.PAGE else Severity.WARNING,
        state=State.OPEN,
        opened_unix_seconds=now_unix_seconds,
        updated_unix_seconds=now_unix_seconds,
        triage=Triage(Verdict.UNDETERMINED, ()),
        evidence=(),
        exemplars=(),
        replicas=(),
        singled_out=(),
        layer="",
        reference="",
        maintenance=maintenance,
        notified=not maintenance,
    )
