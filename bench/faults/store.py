"""Results of trials in, the same after an interruption out: one line of JSON for each, in a folder for each protocol."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Any: JSON.
Record = dict[str, Any]


class Store:
    """A file of records by key. A line that an interruption cut short is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._records = dict(_read(path))
        # What was cut short would otherwise begin the next line.
        lines = [json.dumps([key, record]) + "\n" for key, record in self._records.items()]
        path.write_text("".join(lines), encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def put(self, key: str, record: Record) -> None:
        """Keeps a record from now on."""
        self._records[key] = record
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, record]) + "\n")


def _read(path: Path) -> Iterator[tuple[str, Record]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            key, record = json.loads(line)
            yield key, record
