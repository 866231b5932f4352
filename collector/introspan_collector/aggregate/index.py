"""Keys in, row numbers out: who has a series, within one limit for all of them."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Allowance:
    """How many time series may be exposed, and how many are."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"series_limit must be >= 1, got {limit}")
        self.limit = limit
        self.used = 0

    def take(self, cost: int) -> bool:
        """Whether that many more series are allowed; takes them if so."""
        if self.used + cost > self.limit:
            return False
        self.used += cost
        return True


class Index(Generic[K]):
    """Row numbers of keys. Beyond the allowance a key shares the row of its overflow key, which always has one.

    Rows of evicted keys are used again, so that arrays by row stay as small as the keys alive.
    """

    def __init__(self, allowance: Allowance, cost: Callable[[K], int], overflow: Callable[[K], K]) -> None:
        self._allowance = allowance
        self._cost = cost
        self._overflow = overflow
        self._rows: dict[K, int] = {}
        self._spared: list[int] = []
        self._overflow_rows: set[int] = set()
        self.size = 0

    def row(self, key: K) -> int:
        """The row of a key, a new one if it is allowed."""
        row = self._rows.get(key)
        if row is not None:
            return row
        spill = self._overflow(key)
        # A checkpoint hands overflow keys back by name: they take no allowance then either.
        if key != spill and self._allowance.take(self._cost(key)):
            return self._add(key)
        row = self._rows.get(spill)
        if row is None:
            row = self._add(spill)
            self._overflow_rows.add(row)
        return row

    def items(self) -> Iterable[tuple[K, int]]:
        """Every key that has a row, and its row."""
        return self._rows.items()

    def overflow_rows(self) -> list[int]:
        """The rows that many keys share."""
        return list(self._overflow_rows)

    def evict(self, keys: Iterable[K]) -> list[int]:
        """Forgets keys and gives back their allowance and their rows; overflow keys stay."""
        rows = []
        for key in keys:
            if self._rows[key] in self._overflow_rows:
                continue
            rows.append(self._rows.pop(key))
            self._allowance.used -= self._cost(key)
        self._spared.extend(rows)
        return rows

    def _add(self, key: K) -> int:
        if self._spared:
            row = self._spared.pop()
        else:
            row = self.size
            self.size += 1
        self._rows[key] = row
        return row
