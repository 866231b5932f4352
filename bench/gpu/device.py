"""The machine's NVIDIA driver in; how many GPUs there are, and what they are called, out. torch is not imported."""

import ctypes
import subprocess
import sys

NONE = "no NVIDIA GPU can be used here: run this where one is, or python -m bench.gpu --rehearse"
"""What a machine without one is told."""

_SUCCESS = 0
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def count(library: str = "libcuda.so.1") -> int:
    """How many GPUs a process here can use; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    found = ctypes.c_int(0)
    if driver.cuInit(0) != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(found)) != _SUCCESS:
        return 0
    return found.value


def describe() -> str:
    """Name, memory and driver of each GPU, as the driver's own program says them."""
    done = subprocess.run(_QUERY, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return "; ".join(lines) if lines else f"{count()} GPUs, which nvidia-smi does not name"


if __name__ == "__main__":
    if not count():
        print(NONE)
        sys.exit(2)
