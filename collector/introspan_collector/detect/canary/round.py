"""One round of one instance and rank, as it was compared."""

from dataclasses import dataclass

from introspan_collector.detect.canary.comparison import Comparison
from introspan_collector.model import Origin


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One round of one replica, which is an instance or one data-parallel rank of it.

    suite: digest of all questions; questions: those that were answered; comparison: None while there is nothing to
    compare with; in_a_row: rounds that deviate, this one included. rank_limit: distance beyond which it is further
    off than every one of the baseline's baseline_rounds, None where that is of another model; is_own: whether that
    baseline is of this replica alone; largest_limit: as rank_limit, of the largest of all distances.
    """

    model: str
    replica: str
    name: str
    origin: Origin
    time_unix_nano: int
    suite: str
    questions: tuple[str, ...]
    comparison: Comparison | None
    in_a_row: int
    rank_limit: float | None = None
    baseline_rounds: int = 0
    is_own: bool = True
    largest_limit: float | None = None

    @property
    def pages(self) -> bool:
        """Whether people are to be told at once: two rounds in a row deviate, and it matters to the answers."""
        return self.comparison is not None and self.in_a_row >= 2 and not self.comparison.equivalent
