"""A record of the log in, the batch it holds out: for everything that reads the log."""

from introspan_collector.accept.decode import Decoded, decode
from introspan_collector.log.segment import Found
from introspan_collector.model import Batch
from introspan_wire.signals import Kind


def to_batch(found: Found) -> Batch:
    """The batch of a sound record. Raises FrameError for one that another version of the collector accepted."""
    header = found.header
    decoded = found.decoded
    if not isinstance(decoded, Decoded):
        decoded = decode(found.payload or b"", header.received_unix_nano)
    return Batch(
        offset=found.offset,
        next_offset=found.next_offset,
        received_unix_nano=header.received_unix_nano,
        producer=header.producer,
        sequence=header.sequence,
        origin=decoded.origin,
        tables=tuple(table for table in decoded.tables if table.schema.kind is not Kind.CANARY),
        status=decoded.status,
        canaries=tuple(table for table in decoded.tables if table.schema.kind is Kind.CANARY),
    )
