"""Steps to run in, docs/benchmarks-gpu.md out; exit code 2 without a GPU, 1 where a step failed or missed a target.

Finished steps are kept, and not run again when the program is started anew. A rehearsal does all of it on a CPU with
tiny models, prints what came out, and writes nothing. `--smoke` is the first thing to run on a new GPU.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu import device, running
from bench.gpu.course import go
from bench.gpu.page import page
from bench.gpu.scale import FULL, REHEARSAL, Scale
from bench.gpu.smoke import LIMIT_SECONDS as SMOKE_SECONDS
from bench.gpu.smoke import smoke
from bench.gpu.state import OtherConditionsError, State
from bench.gpu.steps import LIMIT_SECONDS, SMOKE, STEPS, Step
from bench.machine import versions
from demo.model import cache_folder

_DOCS = Path(__file__).parents[2] / "docs"
_GPU_PACKAGES = ("vllm", "triton", "transformers")


def main(arguments: Sequence[str] | None = None, gpus: int | None = None) -> int:
    """Runs what is not finished yet. gpus: how many there are; None looks."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("--only", choices=STEPS, action="append", help="run this step alone")
    parser.add_argument("--again", choices=STEPS, action="append", help="run this step though it is finished")
    parser.add_argument("--state", type=Path, help="where finished steps are kept")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny models; writes nothing")
    parser.add_argument("--smoke", action="store_true", help="in three minutes: does it work here at all?")
    parser.add_argument("--step", choices=STEPS | SMOKE, help=argparse.SUPPRESS)
    parser.add_argument("into", type=Path, nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    scale = REHEARSAL if options.rehearse else FULL
    if not options.rehearse and not (device.count() if gpus is None else gpus):
        print(device.NONE)
        return 2
    if options.step is not None:
        return _run_here((STEPS | SMOKE)[options.step], scale, options.into)
    if options.smoke:
        at_once = 1 if options.rehearse else len(SMOKE)
        return smoke(list(SMOKE.values()), lambda step: _values(step, scale, SMOKE_SECONDS), at_once)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.state or (Path(scratch) if options.rehearse else cache_folder().parent / "bench-gpu")
        conditions = _conditions(scale)
        try:
            state = State(folder, conditions)
        except OtherConditionsError as error:
            print(error)
            return 1
        for name in options.again or ():
            state.forget(name)
        told = (
            _printed
            if options.rehearse
            else lambda _: _write({"conditions": conditions, "steps": state.finished()})
        )
        steps = [STEPS[name] for name in options.only or STEPS]
        problems = go(steps, state, lambda step: _measured(step, scale), told, judge=not options.rehearse)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _values(step: Step, scale: Scale, limit_seconds: float) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-m", "bench.gpu", "--step", step.name]
    if scale.is_rehearsal:
        command.append("--rehearse")
    return running.run(command, LIMIT_SECONDS if scale.is_rehearsal else limit_seconds)


def _measured(step: Step, scale: Scale) -> dict[str, Any]:
    began = time.monotonic()
    values = _values(step, scale, LIMIT_SECONDS)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": time.monotonic() - began,
        "values": values,
    }


def _printed(result: dict[str, Any]) -> None:
    print(json.dumps(result["values"], indent=2))


def _run_here(step: Step, scale: Scale, into: Path) -> int:
    values = importlib.import_module(step.module).run(scale, *step.arguments)
    into.write_text(json.dumps(values), encoding="utf-8")
    return 0


def _conditions(scale: Scale) -> dict[str, str]:
    """What has to be the same for results to stand on one page."""
    commit = ("git", "-C", str(_DOCS), "rev-parse", "--short", "HEAD")
    done = subprocess.run(commit, capture_output=True, text=True, check=False)
    where = "a rehearsal" if scale.is_rehearsal else device.describe()
    return {"device": where, "commit": done.stdout.strip() or "unknown", **versions(_GPU_PACKAGES)}


def _write(stored: dict[str, Any]) -> None:
    (_DOCS / "benchmarks-gpu.json").write_text(
        json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (_DOCS / "benchmarks-gpu.md").write_text(page(stored), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
