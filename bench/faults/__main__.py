"""Parts to run in, docs/detection-results.md out; exit code 1 when a part missed a target, 2 when one failed."""

import argparse
import importlib
import json
import math
import sys
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.faults.page import missed, page
from bench.faults.parts import PARTS
from bench.faults.protocol import PROTOCOL, check_seal, digest
from bench.faults.result import Result
from bench.faults.workplace import Workplace
from bench.machine import hardware, versions
from demo.positive import positive

_DOCS = Path(__file__).parent.parent.parent / "docs"


def main() -> int:
    """Runs the parts one after another, from where each was interrupted, and writes each as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part alone")
    parser.add_argument(
        "--scale", type=positive, default=1.0, help="share of the instances of random faults; 2 doubles them"
    )
    parser.add_argument("--docs", type=Path, default=_DOCS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", choices=PROTOCOL["dtypes"], action="append", help="run in this one alone")
    parser.add_argument(
        "--finished", action="store_true", help="run nothing, and write what earlier runs finished"
    )
    parser.add_argument("--minutes", type=positive, default=math.inf, help="begin no trial after so many")
    options = parser.parse_args()
    check_seal()
    # Batches of a single thread are what two busy cores compute most of.
    torch.set_num_threads(1)
    dtypes = () if options.finished else tuple(options.dtype or PROTOCOL["dtypes"])
    until = time.monotonic() + 60.0 * options.minutes
    code = 0
    for name in options.only or PARTS:
        code = max(code, _measure(name, options, dtypes, until))
    return code


def _measure(name: str, options: argparse.Namespace, dtypes: tuple[str, ...], until: float) -> int:
    print(f"── {name}: {PARTS[name].question}", flush=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            result = importlib.import_module(PARTS[name].module).run(
                Workplace(progress, options.scale, dtypes, is_over=lambda: time.monotonic() > until)
            )
    except Exception:  # noqa: BLE001 the other parts are worth measuring still
        traceback.print_exc()
        return 2
    found = write(name, result, options.docs)
    problems = missed(found)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


# Any: a result is JSON, whose leaves are numbers and text.
def write(name: str, result: Result, docs: Path) -> dict[str, Any]:
    """Stores a part's result and writes the page of all that are stored; returns what it stored."""
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions() | {"transformers": importlib.import_module("transformers").__version__},
        "protocol": result.protocol or digest(),
        "result": _finite(asdict(result)),
    }
    folder = docs / "detection-results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(_json(found), encoding="utf-8")
    merge(docs)
    return found


def merge(docs: Path) -> None:
    """Writes page and JSON of all parts from the file of each."""
    results = {
        path.stem: json.loads(path.read_text("utf-8")) for path in (docs / "detection-results").glob("*.json")
    }
    (docs / "detection-results.json").write_text(_json(dict(sorted(results.items()))), encoding="utf-8")
    (docs / "detection-results.md").write_text(page(results), encoding="utf-8")


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no infinity: what exceeds everything is said in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
