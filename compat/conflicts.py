"""Our requirements and vLLM's in; whether one environment meets both, and what of vLLM's ours would change, out."""

import re
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compat.wheels import UV, Release

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"
_PYTHON = "3.12"
"""Of vLLM's own images."""

_PLAIN = ("--quiet", "--no-header", "--no-annotate")
_AS_IT_IS = ("--dry-run", "--offline", "--no-index")


class ConflictError(Exception):
    """No environment meets all requirements; the resolver's words."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One release resolved with ours. ours: our requirements and the version each gets.

    added: packages that vLLM alone would not bring; changed: those of its own that get another version than alone.
    conflict: why there is no such environment, "" where there is.
    """

    distribution: str
    version: str
    ours: dict[str, str]
    added: list[str]
    changed: list[str]
    conflict: str = ""

    # Any: JSON.
    def as_json(self) -> dict[str, Any]:
        """What a file of results keeps."""
        return asdict(self)


def requirements() -> list[str]:
    """What the package in a server requires, from pyproject.toml."""
    found: list[str] = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return found


def together(
    release: Release, ours: Sequence[str], overrides: Path | None = None, index: Sequence[str] = ()
) -> Resolution:
    """What a release and our requirements resolve to. index: options of uv on where packages are."""
    theirs = f"{release.distribution}=={release.version}"
    options = [*index, *(("--override", str(overrides)) if overrides else ())]
    alone = resolve([theirs], options)
    try:
        both = resolve([theirs, *ours], options)
    except ConflictError as error:
        return Resolution(release.distribution, release.version, {}, [], [], str(error))
    return Resolution(
        release.distribution,
        release.version,
        {one: both[bare(one)] for one in ours},
        sorted(f"{name} {version}" for name, version in both.items() if name not in alone),
        sorted(f"{name} {alone[name]} → {both.get(name)}" for name in alone if both.get(name) != alone[name]),
    )


def resolve(wanted: Sequence[str], options: Sequence[str] = ()) -> dict[str, str]:
    """Versions by package of an environment that has what is wanted. Raises ConflictError where there is none."""
    done = _piped("\n".join(wanted), "compile", "-", *_PLAIN, "--python-version", _PYTHON, *options)
    if done.returncode:
        raise ConflictError(" ".join(done.stderr.split()))
    lines = (line.partition(";")[0].strip() for line in done.stdout.splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line)


def lacking(python: Path, wanted: Sequence[str]) -> str | None:
    """Why an environment as it is does not meet requirements, or None where it does; nothing is fetched."""
    done = _piped("\n".join(wanted), "install", *_AS_IT_IS, "--python", str(python), "-r", "-")
    return " ".join(done.stderr.split()) if done.returncode else None


def _piped(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(UV), "pip", *arguments], input=text, capture_output=True, text=True, check=False
    )


def bare(requirement: str) -> str:
    """The name of the package that a requirement is about."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
