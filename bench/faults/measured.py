"""A workplace in, the pool of requests that the real engine measured out: gathered first, where it is not yet there."""

import fcntl
import subprocess
import sys
from pathlib import Path

from bench.faults.lock import LOCK
from bench.faults.pool import Pool, read_pool
from bench.faults.second_protocol import check_second_seal
from bench.faults.traffic_protocol import check_traffic_seal
from bench.faults.workplace import Workplace
from demo.model import cache_folder

_SECONDS = "1200"

DETECTOR = "rarity"
"""Names the detector's way of scoring: trials of another one are not taken over."""


def folder(plan: str = "traffic") -> Path:
    """Where the measured sets of a plan are kept, outside the working tree."""
    return cache_folder().parent / f"bench-{plan}"


def measured(workplace: Workplace, plan: str = "traffic") -> Pool:
    """Every set there is. An engine of its own gathers for twenty minutes at most; the next run goes on."""
    check_traffic_seal()
    check_second_seal()
    place = folder(plan)
    place.mkdir(parents=True, exist_ok=True)
    if not workplace.dtypes:
        return read_pool(place)
    say = workplace.progress.console.print
    if _is_gathering(place):
        say(f"another program gathers requests into {place}: what is there already is used")
        return read_pool(place)
    say(f"gathering requests into {place}, at most {_SECONDS} s")
    program = [
        *(sys.executable, "-m", "bench.faults.gather", str(place)),
        *("--plan", plan, "--seconds", _SECONDS),
    ]
    subprocess.run(program, check=True)
    return read_pool(place)


def _is_gathering(place: Path) -> bool:
    with (place / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
