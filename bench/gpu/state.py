"""Results of finished steps in, the same out when the program is started again: a folder with a file for each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class OtherConditionsError(Exception):
    """The folder holds results of another machine or of other versions."""


class State:
    """What was finished under one set of conditions. Raises OtherConditionsError for a folder of others.

    conditions: whatever has to be the same for results to stand on one page.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        stored = folder / "conditions.json"
        if stored.exists():
            before = json.loads(stored.read_text(encoding="utf-8"))
            changed = sorted(
                key for key in before.keys() | conditions.keys() if before.get(key) != conditions.get(key)
            )
            if changed:
                raise OtherConditionsError(
                    f"{folder} holds results under other conditions ({', '.join(changed)}); give another --state, "
                    "or remove it"
                )
        else:
            _write(stored, dict(conditions))

    # Any: a step's values, as JSON.
    def finished(self) -> dict[str, Any]:
        """Results by step."""
        files = sorted(self._folder.glob("step-*.json"))
        return {
            path.stem.removeprefix("step-"): json.loads(path.read_text(encoding="utf-8")) for path in files
        }

    def keep(self, step: str, result: Mapping[str, Any]) -> None:
        """Keeps a finished step's result: whole, or not at all."""
        _write(self._folder / f"step-{step}.json", dict(result))

    def forget(self, step: str) -> None:
        """Has a step run again."""
        (self._folder / f"step-{step}.json").unlink(missing_ok=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    half = path.with_suffix(".half")
    half.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)
