"""Requests that a server sent itself again in, what they say about its cache out, and added to what is known."""

from collections.abc import Callable

import numpy as np

from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.knowledge import Knowledge
from introspan_collector.detect.live.reprefill import Judged
from introspan_collector.detect.reference.reference import Identity
from introspan_collector.model import Batch
from introspan_wire.codec import SegmentTable


def compare(
    knowledge: Knowledge, batch: Batch, table: SegmentTable, is_healthy: Callable[[Subject], bool]
) -> list[Judged]:
    """Takes a table of comparisons, of models and adapters whose traffic was seen; returns those that page."""
    paging = []
    origin, adapters = batch.origin, np.array(table.adapter)
    for adapter in sorted(set(table.adapter)):
        subject = Subject(origin.model, adapter)
        if subject not in knowledge.watches:
            continue
        judged = knowledge.pieces.reprefill.see(
            Identity.of(origin, adapter),
            origin.replica,
            table,
            np.flatnonzero(adapters == adapter),
            batch.received_unix_nano,
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
