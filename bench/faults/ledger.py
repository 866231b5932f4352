"""Results of trials in, the same after an interruption out: one line of JSON for each."""

import json
from pathlib import Path
from typing import Any


class Ledger:
    """Records by key in a file. A line that an interruption cut short is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        # Any: JSON.
        self._records: dict[str, Any] = dict(json.loads(line) for line in lines if line.endswith("\n"))
        # What was cut short would otherwise begin the next line.
        path.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Any:
        return self._records[key]

    def put(self, key: str, record: Any) -> None:
        """Keeps a record from now on."""
        self._records[key] = record
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, record]) + "\n")
