"""A workplace in, the pool of requests that the real engine measured out: gathered first, where it is not yet there."""

import fcntl
import subprocess
import sys
from pathlib import Path

from bench.faults.lock import LOCK
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
    folder().mkdir(parents=True, exist_ok=True)
    say = workplace.progress.console.print
    if _is_gathering():
        say(f"another program gathers requests into {folder()}: what is there already is used")
        return read_pool(folder())
    say(f"gathering requests into {folder()}, at most {_SECONDS} s")
    program = [sys.executable, "-m", "bench.faults.gather", str(folder()), "--seconds", _SECONDS]
    subprocess.run(program, check=True)
    return read_pool(folder())


def _is_gathering() -> bool:
    with (folder() / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
