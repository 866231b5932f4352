"""Parts to run in, docs/benchmarks.md out; exit code 1 when a part failed or missed a target."""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import hardware, versions
from bench.page import missed, page
from bench.parts import PARTS, Part

_DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    """Runs the parts one after another, each in a process of its own, and writes what they measured."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part alone")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into is not None:
        return _run_here(PARTS[options.only[0]], options.into)
    problems = []
    for name in options.only or PARTS:
        print(f"── {name}: {PARTS[name].question}", flush=True)
        problems += _measure(PARTS[name])
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _run_here(part: Part, into: Path) -> int:
    values = importlib.import_module(part.module).run()
    into.write_text(json.dumps(values), encoding="utf-8")
    return 0


def _measure(part: Part) -> list[str]:
    """One sentence for each thing that went wrong; what was measured is written at once."""
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch, "values.json")
        # A process of its own: one part's memory, threads and failures are not the next one's.
        command = [sys.executable, "-m", "bench", "--only", part.name, "--into", str(into)]
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            return [f"{part.name} failed with exit code {code}; docs/benchmarks.md keeps its last result"]
        values = json.loads(into.read_text(encoding="utf-8"))
    _write(part, values)
    return [f"{part.name}: {sentence}" for sentence in missed(part, values)]


# Any: a result is JSON, whose leaves are numbers and text.
def _write(part: Part, values: dict[str, Any]) -> None:
    stored = _DOCS / "benchmarks.json"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    results[part.name] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "values": values,
    }
    stored.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (_DOCS / "benchmarks.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
