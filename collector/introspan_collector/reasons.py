"""What a worker says of itself in, label values of a bounded number out: reasons are free text."""

from collections import Counter
from collections.abc import Iterable, Mapping

from introspan_collector.model import ProducerStatus

OTHER = "other"
"""Stands for every reason beyond the limit."""

REASONS = 16
"""So many reasons of drops, and pairs of signal and reason of what is disabled, does one worker show by name."""

_ALWAYS = 1  # when it was last seen
_WITH_STATUS = 7  # six counters and the sampling probability


def drops_by_reason(status: ProducerStatus) -> Mapping[str, int]:
    """Segments dropped by reason, each reason once, in the order of their names."""
    drops: Counter[str] = Counter()
    for reason, segments in status.drops:
        drops[reason] += segments
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
        count += _WITH_STATUS + len(drops_by_reason(status)) + len(disabled_by_reason(status))
    return count
