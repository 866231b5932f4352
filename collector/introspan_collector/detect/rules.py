"""Impossible values, and canaries or requests sent again far off in, findings out: what pages by a rule."""

import math
from collections.abc import Sequence

from introspan_collector.detect.canary.comparison import PAGE_RATIO, Comparison
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.canary.rounds import DISTANCE
from introspan_collector.detect.incident.finding import Copy, Exemplar, Finding
from introspan_collector.detect.live import reprefill
from introspan_collector.detect.sequential.alarm import Alarm, Carrier
from introspan_collector.detect.sequential.evidence import Stream
from introspan_wire.codec import SegmentTable

CONSISTENCY = "consistency.reprefill"
"""What a canary is about that differs from itself: computed twice, once from the cache or while decoding."""

_CARRIERS = 16


def impossible_finding(found: Sequence[tuple[Stream, int]], table: SegmentTable, now: float) -> Finding:
    """What is told of streams that should be zero and are not, each with a row of the table that shows it."""
    stream, row = found[0]
    carriers = tuple(Carrier(one, 1.0 / len(found)) for one, _ in found[:_CARRIERS])
    alarm = Alarm(stream.model, stream.adapter, now, math.inf, math.inf, carriers)
    where = f" at layer {stream.layer}" if stream.layer >= 0 else ""
    more = f", nor are {len(found) - 1} more signals" if len(found) > 1 else ""
    sentence = (
        f"{stream.signal}{where} is not zero on {stream.replica}{more}: a healthy server never shows this."
    )
    trace = table.trace_id[row].tobytes().hex() if table.trace_id[row].any() else ""
    exemplar = Exemplar(table.request_id[row], trace, stream.replica, stream.signal, 0.0, "p")
    return Finding(alarm, Copy.PAGE, sentence, replicas=(stream.replica,), exemplars=(exemplar,))


def canary_finding(finished: Round, found: Comparison, now: float) -> Finding:
    """What is told of a canary that pages; found is the comparison of its last round."""
    is_twice = found.consistency_ratio >= found.distance
    detector, signal = ("consistency", CONSISTENCY) if is_twice else ("canary", DISTANCE)
    stream = Stream(finished.model, finished.replica, "", detector, "", signal, -1, "high")
    level = math.log10(max(found.distance / PAGE_RATIO, 1.0))
    alarm = Alarm(finished.model, "", now, level, math.inf, (Carrier(stream, 1.0),))
    place = f", beginning at {found.place}" if found.place else ""
    flipped = f"{found.flipped} greedy tokens flipped, " if found.flipped else ""
    sentence = (
        f"The canary on {finished.replica} is {found.distance:.1f} times as far off as chance explains, in "
        f"{finished.in_a_row} rounds in a row{place}: {flipped}divergence of the output {found.kl_nats:.2g} nats, "
        f"likeliest token as in healthy rounds at {found.top1:.1%} of positions."
    )
    return Finding(alarm, Copy.PAGE, sentence, layer=found.place, replicas=(finished.replica,))


def reprefill_finding(judged: reprefill.Judged, now: float) -> Finding:
    """What is told of requests sent again that are far from what was decoded."""
    stream = judged.stream
    level = math.log10(max(judged.ratio / reprefill.PAGE_RATIO, 1.0))
    alarm = Alarm(stream.model, stream.adapter, now, level, math.inf, (Carrier(stream, 1.0),))
    sentence = (
        f"States at layer {stream.layer} that {stream.replica} decoded differ from the same ones prefilled by up to "
        f"{judged.ratio:.3g} times as much as in any of the first requests sent again, in two in a row or more."
    )
    exemplars = () if judged.exemplar is None else (judged.exemplar,)
    return Finding(alarm, Copy.PAGE, sentence, replicas=(stream.replica,), exemplars=exemplars)
