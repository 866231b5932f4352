"""Names and bytes in, files out: the few operations on a directory that the log is built on."""

import contextlib
import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """One flat directory. Every operation raises OSError when the system refuses it."""

    def names(self) -> list[str]:
        """Names of the files, sorted."""
        ...

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        ...

    def read(self, name: str, position: int, size: int) -> bytes:
        """Up to size bytes; fewer only at the end of the file."""
        ...

    def create(self, name: str) -> None:
        """Makes an empty file whose name survives a crash."""
        ...

    def write(self, name: str, position: int, data: bytes) -> None:
        """Writes all bytes, which survive a crash only after sync. On an error some may have been written."""
        ...

    def sync(self, name: str) -> None:
        """Returns once what was written to a file survives a crash."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cuts a file to a length."""
        ...

    def remove(self, name: str) -> None:
        """Deletes a file."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Makes data the whole content of a file: after a crash it is all old or all new."""
        ...

    def close(self) -> None:
        """Releases what the operations above hold open."""
        ...


class Disk:
    """A directory of the local file system, created if missing. Not for use by two threads.

    With read_only=True nothing is created, and no right to write is needed.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._mode = os.O_RDONLY if read_only else os.O_RDWR
        self._descriptors: dict[str, int] = {}

    def names(self) -> list[str]:
        """Names of the files, sorted."""
        return sorted(path.name for path in self._directory.iterdir())

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        return (self._directory / name).stat().st_size

    def read(self, name: str, position: int, size: int) -> bytes:
        """Up to size bytes; fewer only at the end of the file."""
        return os.pread(self._open(name), size, position)

    def create(self, name: str) -> None:
        """Makes an empty file whose name survives a crash."""
        os.close(os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        self._sync_directory()

    def write(self, name: str, position: int, data: bytes) -> None:
        """Writes all bytes, which survive a crash only after sync. On an error some may have been written."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._open(name), view, position)
            view, position = view[written:], position + written

    def sync(self, name: str) -> None:
        """Returns once what was written to a file survives a crash."""
        os.fdatasync(self._open(name))

    def truncate(self, name: str, size: int) -> None:
        """Cuts a file to a length."""
        os.ftruncate(self._open(name), size)

    def remove(self, name: str) -> None:
        """Deletes a file."""
        self._forget(name)
        (self._directory / name).unlink()

    def replace(self, name: str, data: bytes) -> None:
        """Makes data the whole content of a file: after a crash it is all old or all new."""
        partial = self._directory / f"{name}.partial"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._forget(name)
        partial.replace(self._directory / name)
        self._sync_directory()

    def close(self) -> None:
        """Closes the files that are open."""
        for name in list(self._descriptors):
            self._forget(name)

    def _open(self, name: str) -> int:
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            # The log works on its newest file and a reader on one other: older ones need not stay open.
            while len(self._descriptors) >= 4:
                self._forget(next(iter(self._descriptors)))
            descriptor = os.open(self._directory / name, self._mode)
            self._descriptors[name] = descriptor
        return descriptor

    def _forget(self, name: str) -> None:
        descriptor = self._descriptors.pop(name, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the descriptor is gone either way
                os.close(descriptor)

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
