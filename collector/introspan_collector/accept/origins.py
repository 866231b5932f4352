"""Encoded resources in, the origins that they name out, each decoded once for as long as it is remembered."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from introspan_collector.model import Origin

_ORIGIN_BYTES = 1024
_ATTRIBUTE_BYTES = 256
"""What objects take beside the text in them."""


class Origins:
    """Remembers those asked for last, as many as fit into so many bytes. Safe for use by several threads.

    Producers choose how long a resource is: a quarter of a megabyte at most. Raises what decode raises.
    """

    def __init__(self, decode: Callable[[bytes], Origin], max_bytes: int) -> None:
        self._decode = decode
        self._max_bytes = max_bytes
        self._known: OrderedDict[bytes, Origin] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """About what is remembered."""

    def __len__(self) -> int:
        return len(self._known)

    def of(self, data: bytes) -> Origin:
        """The origin of an encoded resource."""
        with self._lock:
            found = self._known.get(data)
            if found is not None:
                self._known.move_to_end(data)
                return found
        made = self._decode(data)
        with self._lock:
            if data not in self._known:
                self._known[data] = made
                self.bytes += _bytes_of(data, made)
            while self.bytes > self._max_bytes:
                self.bytes -= _bytes_of(*self._known.popitem(last=False))
        return made


def _bytes_of(data: bytes, origin: Origin) -> int:
    # The text is there twice, encoded and decoded.
    return 2 * len(data) + _ORIGIN_BYTES + _ATTRIBUTE_BYTES * len(origin.attributes)
