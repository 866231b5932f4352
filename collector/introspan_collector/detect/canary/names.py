"""Addresses that are asked in; the instances and ranks that answer there, by the names they give themselves, out."""

_GONE_NANO = 3_600_000_000_000
_MOST_ADDRESSES = 1024
_MOST_NAMES = 64


class Names:
    """Whose states have come lately for what was asked at an address.

    An answer without states does not say whose it is; where only one has answered for an hour, it is that one's.
    """

    def __init__(self, known: dict[str, dict[str, int]] | None = None) -> None:
        self._known = known or {}

    def hear(self, address: str, replica: str, now_unix_nano: int) -> None:
        """States of a replica came for what was asked at an address."""
        known = self._known.pop(address, {})
        known.pop(replica, None)
        kept = {name: at for name, at in known.items() if now_unix_nano - at < _GONE_NANO}
        while len(kept) >= _MOST_NAMES:
            del kept[next(iter(kept))]
        self._known[address] = {**kept, replica: now_unix_nano}
        while len(self._known) > _MOST_ADDRESSES:
            del self._known[next(iter(self._known))]

    def at(self, address: str) -> str:
        """The name of who answers there; the address itself where that is nobody known, or one of several."""
        known = self._known.get(address, {})
        return next(iter(known)) if len(known) == 1 else address

    def dump(self) -> dict[str, dict[str, int]]:
        """What `Names` takes."""
        return self._known
