"""What the sequential test says when it speaks: whom it is about, how sure it is, and which streams carry it."""

from dataclasses import dataclass

from introspan_collector.detect.sequential.evidence import Stream


@dataclass(frozen=True, slots=True)
class Carrier:
    """A stream that carries an alarm; share is its part of the evidence, 0 to 1."""

    stream: Stream
    share: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """The evidence about one model and adapter has reached the threshold.

    level is log₁₀ of evidence over threshold, ≥ 0, infinite when something happened that cannot; while all is well
    false_alarm_seconds pass on average between alarms of all models together, at least. carriers: the largest
    shares first, at most 16.
    """

    model: str
    adapter: str
    time_seconds: float
    level: float
    false_alarm_seconds: float
    carriers: tuple[Carrier, ...]
