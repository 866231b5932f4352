"""What a worker says of itself in, label values of a bounded number out: reasons are free text."""

from collections import Counter
from collections.abc import Iterable, Mapping

from introspan_collector.model import ProducerStatus

DROPS = ("drops", "dropped_requests", "dropped_rows")
"""Fields of a status that count what was given up: segments, requests and rows, each by reason."""

OTHER = "other"
"""Stands for every reason beyond the limit."""

REASONS = 16
"""So many reasons of drops of each kind, and pairs of what is disabled and why, does one worker show by name."""

_ALWAYS = 2  # when it was last seen, and what it serves
_WITH_STATUS = 8  # six counters, the sampling probability and the age of the queue


def by_reason(counts: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    """What was dropped by reason, each reason once, in the order of their names."""
    drops: Counter[str] = Counter()
    for reason, count in counts:
        drops[reason] += count
    named = dict(sorted(drops.items())[:REASONS])
    rest = drops.total() - sum(named.values())
    if len(drops) > REASONS:
        named[OTHER] = named.get(OTHER, 0) + rest
    return named


def disabled_by_reason(status: ProducerStatus) -> list[tuple[str, str]]:
    """Signal and reason of what is disabled, each pair once, in order."""
    pairs = sorted({(disabled.signal, disabled.reason) for disabled in status.disabled})
    return pairs if len(pairs) <= REASONS else sorted({*pairs[:REASONS], (OTHER, OTHER)})


def series_of(status: ProducerStatus | None, kinds: Iterable[str]) -> int:
    """Time series that one worker is exposed as."""
    count = _ALWAYS + len(list(kinds))
    if status is not None:
        count += _WITH_STATUS + len(disabled_by_reason(status))
        count += sum(len(by_reason(getattr(status, name))) for name in DROPS)
    return count
