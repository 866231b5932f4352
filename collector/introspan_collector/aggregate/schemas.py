"""Schemas in, what waits of each out: of so many schemas as are kept decoded, those that came last."""

from collections import OrderedDict
from collections.abc import Callable

from introspan_collector.aggregate.pending import Pending
from introspan_collector.layout import layout
from introspan_wire.codec import SCHEMAS_KEPT, Schema

_ROWS_KEPT = 10_000


class Schemas:
    """What waits, by schema. Peers choose schemas, and each takes memory: the one unused longest goes first.

    reduce: takes what waits of a schema; called before one is forgotten, so that nothing is lost by it.
    """

    def __init__(self, reduce: Callable[[Pending], None], limit: int = SCHEMAS_KEPT) -> None:
        self._reduce = reduce
        self._limit = limit
        self._pending: OrderedDict[Schema, Pending] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of values that wait."""
        return sum(pending.bytes for pending in self._pending.values())

    def pending(self, schema: Schema) -> Pending:
        """What waits of a schema, to be added to."""
        found = self._pending.get(schema)
        if found is None:
            while len(self._pending) >= self._limit:
                self._evict()
            found = self._pending[schema] = Pending(layout(schema))
        self._pending.move_to_end(schema)
        return found

    def reduce_all(self) -> None:
        """Has everything reduced that waits."""
        for pending in self._pending.values():
            if len(pending):
                self._reduce(pending)

    def make_room(self) -> None:
        """Before rows of one more model, replica and adapter are kept: forgets them all where they are many."""
        if sum(len(pending.rows) for pending in self._pending.values()) >= _ROWS_KEPT:
            self.forget_rows()

    def forget_rows(self) -> None:
        """Forgets where rows are added to: it is looked up again."""
        for pending in self._pending.values():
            pending.rows.clear()

    def _evict(self) -> None:
        _, oldest = self._pending.popitem(last=False)
        self.evicted += 1
        if len(oldest):
            self._reduce(oldest)
