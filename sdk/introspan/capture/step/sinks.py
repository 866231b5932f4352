"""Where capture ends: the calls by which its results leave."""

from collections.abc import Callable
from dataclasses import dataclass

from introspan.observation import Observation, Request, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Sinks:
    """Where measured rows and the ends of requests go; both are called on the model's thread and must not block."""

    rows: Callable[[Rows], None]
    canaries: Callable[[list[Observation]], None]
    finished: Callable[[Request, int], None]
