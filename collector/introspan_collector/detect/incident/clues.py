"""Findings in, what an incident keeps of them out: bounded, the strongest kept."""

import math
from collections.abc import Iterable
from dataclasses import replace

from introspan_collector.detect.incident.finding import Copy, Exemplar, Finding
from introspan_collector.detect.incident.incident import Clue, Incident
from introspan_collector.detect.sequential.alarm import Carrier
from introspan_collector.detect.sequential.evidence import Stream

MOST_CLUES = 32
MOST_EXEMPLARS = 5
MOST_REPLICAS = 64
_HIGHEST_LEVEL = 300.0  # of something that cannot happen: JSON has no infinity


def with_finding(incident: Incident, finding: Finding) -> Incident:
    """The incident with one more finding in its evidence."""
    clues, left_out = _merged(incident.evidence, _clues(finding))
    carriers = [carrier.stream for carrier in finding.alarm.carriers]
    singled_out = [stream.replica for stream in carriers if stream.detector == "replicas"]
    seen_at = (*finding.replicas, *(stream.replica for stream in carriers))
    return replace(
        incident,
        evidence=clues,
        unlisted_clues=incident.unlisted_clues + left_out,
        exemplars=_most_surprising((*incident.exemplars, *finding.exemplars)),
        replicas=_named(incident.replicas, seen_at),
        singled_out=_named(incident.singled_out, singled_out),
        layer=finding.layer or incident.layer,
        reference=finding.reference or incident.reference,
    )


def _clues(finding: Finding) -> list[Clue]:
    alarm = finding.alarm
    rate = alarm.false_alarm_seconds if 0 < alarm.false_alarm_seconds < math.inf else None
    level = min(alarm.level, _HIGHEST_LEVEL)
    when = alarm.time_seconds
    return [
        Clue(
            carrier.stream,
            finding.copy,
            level,
            carrier.share,
            rate,
            when,
            when,
            finding.sentence or _sentence(carrier),
        )
        for carrier in alarm.carriers
    ]


def _sentence(carrier: Carrier) -> str:
    stream = carrier.stream
    if stream.detector == "reprefill":
        usual = "any" if stream.side == "highest" else "95 %"
        return (
            f"States at layer {stream.layer} that {stream.replica} decoded differ from the same ones prefilled by more "
            f"than twice as much as in {usual} of the first requests sent again: {carrier.share:.0%} of the evidence."
        )
    if stream.detector == "canary":
        how = "one of its distances" if stream.side == "largest" else "all of its numbers together"
        return (
            f"Rounds of the canary on {stream.replica} are further off than every one of its baseline, by {how}: "
            f"{carrier.share:.0%} of the evidence."
        )
    where = f" at layer {stream.layer}" if stream.layer >= 0 else ""
    rows = f" of {stream.kind} rows" if stream.kind else ""
    replica = f" on {stream.replica}" if stream.replica else ""
    side = f", side {stream.side}" if stream.side else ""
    what = f"{stream.signal or 'the most unusual requests'}{where}{rows}{replica}{side}"
    return f"{what}: {carrier.share:.0%} of the evidence, by detector {stream.detector}."


def _merged(known: tuple[Clue, ...], new: Iterable[Clue]) -> tuple[tuple[Clue, ...], int]:
    """Clues in the order of their weight, and how many were left out."""
    by_stream: dict[tuple[Stream, Copy], Clue] = {(clue.stream, clue.copy): clue for clue in known}
    for clue in new:
        before = by_stream.get((clue.stream, clue.copy))
        by_stream[clue.stream, clue.copy] = clue if before is None else _later(before, clue)
    ranked = sorted(by_stream.values(), key=_weight)
    return tuple(ranked[:MOST_CLUES]), max(len(ranked) - MOST_CLUES, 0)


def _later(before: Clue, now: Clue) -> Clue:
    stronger = now if now.level + _log(now.share) >= before.level + _log(before.share) else before
    return replace(
        stronger, first_unix_seconds=before.first_unix_seconds, last_unix_seconds=now.last_unix_seconds
    )


def _weight(clue: Clue) -> tuple[bool, float, Stream]:
    # The stream decides between equals, so that reading the log again gives the same order.
    return clue.copy is not Copy.PAGE, -clue.level - _log(clue.share), clue.stream


def _log(share: float) -> float:
    return math.log10(max(share, 1e-300))


def _most_surprising(exemplars: Iterable[Exemplar]) -> tuple[Exemplar, ...]:
    by_request = {}
    for one in sorted(exemplars, key=lambda one: one.surprise):
        by_request[one.request_id] = one
    return tuple(sorted(by_request.values(), key=lambda one: -one.surprise)[:MOST_EXEMPLARS])


def _named(known: tuple[str, ...], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*known, *(name for name in new if name)})[:MOST_REPLICAS])
