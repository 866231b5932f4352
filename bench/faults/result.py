"""What a part found: claims against targets, tables, and how it was done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure against its target. low, high: its interval, None where it has none; bound None: no target was set.

    is_complete: whether all that it is to be measured on has run; before that nothing is said to be met. row: where it
    belongs in the table of faults, see rows.py; is_gain: whether it is what internals add to outputs alone.
    """

    text: str
    measured: float | None
    bound: float | None
    at_most: bool = False
    low: float | None = None
    high: float | None = None
    is_complete: bool = True
    row: str = ""
    is_gain: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the measured figure keeps the bound; what was not measured does not."""
        if self.bound is None:
            return True
        if self.measured is None or math.isnan(self.measured):
            return False
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    @property
    def missed_by(self) -> float:
        """How far the figure is from its bound, 0 where it is met."""
        if self.is_met or self.measured is None or self.bound is None:
            return 0.0
        return abs(self.measured - self.bound)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Result:
    """A part's result. complete: how much of what was to be run was; notes: how it was done, and what it cannot say.

    protocol: the hash of what was written down before the run, "" for the one of protocol.py.
    """

    complete: str
    notes: Sequence[str]
    claims: Sequence[Claim]
    tables: Sequence[Table]
    protocol: str = ""


def load(found: Mapping[str, Any]) -> Result:
    """A result from JSON. Any: JSON."""
    return Result(
        found["complete"],
        found["notes"],
        [Claim(**claim) for claim in found["claims"]],
        [Table(**table) for table in found["tables"]],
    )
