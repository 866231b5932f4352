"""What a detector reports: an alarm of the sequential test with what is known about it beside the figures."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from introspan_collector.detect.sequential.alarm import Alarm


class Copy(StrEnum):
    """The two copies of the sequential test: one may raise a false alarm in a day, the other in thirty."""

    TICKET = "ticket"
    PAGE = "page"


class Subject(NamedTuple):
    """What an incident is about; adapter is "" for the model without one."""

    model: str
    adapter: str

    def __str__(self) -> str:
        return f"{self.model} with adapter {self.adapter}" if self.adapter else self.model


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A request that shows the fault. score: a robust z, or the p-value of the request among healthy ones."""

    request_id: str
    trace_id: str
    replica: str
    feature: str
    score: float
    measure: Literal["z", "p"]

    @property
    def surprise(self) -> float:
        """Minus log10 of the probability of a score as extreme; a z counts as a Gaussian's."""
        chance = math.erfc(abs(self.score) / math.sqrt(2)) if self.measure == "z" else self.score
        return -math.log10(max(chance, 1e-300))


@dataclass(frozen=True, slots=True)
class Finding:
    """An alarm of one copy of the sequential test, or of a rule, with what is known about it beside the figures.

    sentence: what was seen, in words of whoever saw it, "" to have it said from the streams. reference: content hash
    of the reference compared with. layer: by name. replicas: where it was seen. Each is empty where there is none.
    """

    alarm: Alarm
    copy: Copy
    sentence: str = ""
    reference: str = ""
    layer: str = ""
    replicas: tuple[str, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()

    def __post_init__(self) -> None:
        if not self.alarm.carriers or math.isnan(self.alarm.level):
            raise ValueError(
                f"an alarm needs a level and >= 1 carriers, got {self.alarm}: say which stream raised it"
            )
