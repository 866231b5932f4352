"""Requests that a server sent itself again in, what they say about its cache out, and added to what is known."""

from collections.abc import Callable

import numpy as np

from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.knowledge import Knowledge
from introspan_collector.detect.live.reprefill import Judged
from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.wholes import Whole


def compare(knowledge: Knowledge, whole: Whole, is_healthy: Callable[[Subject], bool]) -> list[Judged]:
    """Takes a table of comparisons, of models and adapters whose traffic was seen; returns those that page."""
    paging = []
    origin, table, received_unix_nano = whole
    adapters = np.array(table.adapter)
    for adapter in sorted(set(table.adapter)):
        subject = Subject(origin.model, adapter)
        if subject not in knowledge.watches:
            continue
        judged = knowledge.pieces.reprefill.see(
            Identity.of(origin, adapter),
            origin.replica,
            table,
            np.flatnonzero(adapters == adapter),
            received_unix_nano,
            is_healthy=is_healthy(subject),
        )
        if judged is None:
            continue
        knowledge.add((judged.evidence,))
        if judged.exemplar is not None:
            knowledge.remember(subject, judged.exemplar)
        if judged.pages:
            paging.append(judged)
    return paging
