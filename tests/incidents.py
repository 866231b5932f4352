"""Findings of every kind, made up, for tests of what becomes of them."""

from introspan_collector.detect.incident.finding import Copy, Exemplar, Finding
from introspan_collector.detect.sequential.alarm import Alarm, Carrier
from introspan_collector.detect.sequential.evidence import Stream

DAY_SECONDS = 86_400.0
RATES = {Copy.TICKET: DAY_SECONDS, Copy.PAGE: 30 * DAY_SECONDS}


def stream(detector: str = "bank", **fields: str | int) -> Stream:
    """A stream of model m, of prompt rows, at layer 3."""
    plain = Stream("m", "", "", detector, "prompt", "residual.log_rms", 3, "high")
    return plain._replace(**fields)  # type: ignore[arg-type]  # names and types are the caller's


def finding(
    *streams: Stream,
    copy: Copy = Copy.TICKET,
    level: float = 0.5,
    at: float = 0.0,
    false_alarm_seconds: float | None = None,
    **fields: str | tuple[str, ...] | tuple[Exemplar, ...],
) -> Finding:
    """An alarm that these streams carry alike."""
    about = streams or (stream(),)
    carriers = tuple(Carrier(one, 1 / len(about)) for one in about)
    rate = RATES[copy] if false_alarm_seconds is None else false_alarm_seconds
    alarm = Alarm(about[0].model, about[0].adapter, at, level, rate, carriers)
    return Finding(alarm, copy, **fields)  # type: ignore[arg-type]  # as above
