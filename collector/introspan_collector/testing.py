"""Stand-ins for tests of what is built on the collector: a disk that forgets unsynced bytes, a free address."""

import errno
import socket
from typing import Protocol

_FOREVER = 10**12


def free_address() -> str:
    """A loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class PowerLossError(Exception):
    """The machine stops here."""


class Survivors(Protocol):
    """Decides what of the changes that were not synced is found after a loss of power."""

    def survives(self) -> bool:
        """True if a truncation reached the disk."""
        ...

    def bytes_of(self, written: bytes) -> bytes:
        """What is found where so many bytes were written; may be shorter, and may have holes."""
        ...


class VolatileDisk:
    """Implements log.files.Files in memory; only synced bytes are sure to survive. Every byte costs one step.

    power_steps: steps until the power fails or the process is killed; last_operation: where it does at once.
    refused: operations that fail with ENOSPC; refused_after: how many bytes of a refused write still reach the file.
    """

    def __init__(self, durable: dict[str, bytes] | None = None) -> None:
        self.durable = dict(durable or {})
        self._current = dict(self.durable)
        self._unsynced: dict[str, list[tuple[int, bytes | None]]] = {name: [] for name in self.durable}
        self.power_steps = _FOREVER
        self.last_operation = ""
        self.refused: set[str] = set()
        self.refused_after = 0

    def restart(self) -> None:
        """The power is back, and nothing is refused any more."""
        self.power_steps, self.last_operation, self.refused = _FOREVER, "", set()

    def after_power_loss(self, survivors: Survivors) -> "VolatileDisk":
        """What is found afterwards."""
        found = {}
        for name, content in self.durable.items():
            for position, written in self._unsynced[name]:
                if written is not None:
                    content = _changed(content, position, survivors.bytes_of(written))  # noqa: PLW2901 it grows
                elif survivors.survives():
                    content = _changed(content, position, None)  # noqa: PLW2901 as above
            found[name] = content
        return VolatileDisk(found)

    def names(self) -> list[str]:
        """Names of the files, sorted."""
        return sorted(self._current)

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        return len(self._current[name])

    def read(self, name: str, position: int, size: int) -> bytes:
        """Up to size bytes; fewer only at the end of the file."""
        if name not in self._current:
            raise FileNotFoundError(name)
        return self._current[name][position : position + size]

    def create(self, name: str) -> None:
        """Makes an empty file whose name survives."""
        self._step("create")
        self._current[name] = self.durable[name] = b""
        self._unsynced[name] = []

    def write(self, name: str, position: int, data: bytes) -> None:
        """Writes all bytes, or some and raises."""
        allowed = self._spend("write", len(data))
        self._apply(name, position, data[:allowed])
        self._check(allowed, len(data))

    def truncate(self, name: str, size: int) -> None:
        """Cuts a file to a length."""
        self._step("truncate")
        self._apply(name, size, None)

    def sync(self, name: str) -> None:
        """What was written to a file survives from now on."""
        self._step("sync")
        self.durable[name] = self._current[name]
        self._unsynced[name] = []

    def remove(self, name: str) -> None:
        """Deletes a file."""
        self._step("remove")
        del self._current[name], self.durable[name], self._unsynced[name]

    def replace(self, name: str, data: bytes) -> None:
        """Makes data the whole content of a file."""
        self._step("replace")
        self._current[name] = self.durable[name] = data
        self._unsynced[name] = []

    def close(self) -> None:
        """Nothing is held open."""

    def _step(self, operation: str) -> None:
        self._check(self._spend(operation, 1), 1)

    def _spend(self, operation: str, steps: int) -> int:
        if operation == self.last_operation:
            self.power_steps = 0
        allowed = min(steps, self.power_steps)
        if operation in self.refused:
            allowed = min(allowed, self.refused_after if operation == "write" else 0)
        self.power_steps -= allowed
        return allowed

    def _check(self, allowed: int, steps: int) -> None:
        if self.power_steps == 0:
            raise PowerLossError
        if allowed < steps:
            raise OSError(errno.ENOSPC, "no space left on the device")

    def _apply(self, name: str, position: int, written: bytes | None) -> None:
        self._unsynced[name].append((position, written))
        self._current[name] = _changed(self._current[name], position, written)


def _changed(content: bytes, position: int, written: bytes | None) -> bytes:
    padded = content.ljust(position, b"\0")
    if written is None:
        return padded[:position]
    return padded[:position] + written + padded[position + len(written) :]
