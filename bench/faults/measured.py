"""A workplace in, the pool of requests that the real engine measured out: gathered first, where it is not yet there."""

import subprocess
import sys
from pathlib import Path

from bench.faults.pool import Pool, read_pool
from bench.faults.traffic_protocol import check_traffic_seal
from bench.faults.workplace import Workplace
from demo.model import cache_folder

_SECONDS = "1200"


def folder() -> Path:
    """Where measured sets are kept, outside the working tree."""
    return cache_folder().parent / "bench-traffic"


def measured(workplace: Workplace) -> Pool:
    """Every set there is. An engine of its own gathers for twenty minutes at most; the next run goes on."""
    check_traffic_seal()
    workplace.progress.console.print(f"gathering requests into {folder()}, at most {_SECONDS} s")
    program = [sys.executable, "-m", "bench.faults.gather", str(folder()), "--seconds", _SECONDS]
    subprocess.run(program, check=True)
    return read_pool(folder())
