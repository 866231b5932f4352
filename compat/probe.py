"""A release of vLLM in; what we rely on that it lacks, as read and as imported, out."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compat.conflicts import bare, requirements
from compat.source import Source
from compat.surface import Found, Surface, problem
from compat.surfaces import CACHES, SURFACES
from compat.wheels import NoWheelError, Release, environment, required, torch_of, unpacked

_IMPORTED = Path(__file__).with_name("imported.py")
_IMPORT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Look:
    """One wheel looked at. problems: sentences by use; not_imported: why, by module; caches: by backend, as written.

    imported: how many modules, None where none was tried; requires: its own demands of packages that we require too.
    """

    distribution: str
    version: str
    torch: str
    problems: dict[str, list[str]]
    imported: int | None = None
    not_imported: dict[str, str] = field(default_factory=dict)
    caches: dict[str, list[str]] = field(default_factory=dict)
    requires: list[str] = field(default_factory=list)

    # Any: JSON.
    def as_json(self) -> dict[str, Any]:
        """What a file of results keeps."""
        return asdict(self)


def read(release: Release, folder: Path) -> Look:
    """What a wheel's files say, none of which is executed. Raises NoWheelError."""
    with unpacked(release, folder) as target:
        source = Source(target)
        caches = {
            name: sorted(one for one in source.assigned(*where) if _is_of_cache(one))
            for name, where in CACHES.items()
        }
        return Look(
            release.distribution,
            release.version,
            torch_of(target),
            lacks(source, SURFACES),
            caches=caches,
            requires=required(target, [bare(one) for one in requirements()]),
        )


def lacks(source: Source, surfaces: Iterable[Surface]) -> dict[str, list[str]]:
    """What the files of a package lack, by use."""
    wanted = list(surfaces)
    return problems(wanted, {name: source.find(name) for surface in wanted for name in surface.names})


def imported(release: Release, torch: str, folder: Path) -> Look:
    """What an import shows in an environment of its own. Raises NoWheelError."""
    with environment(release, torch, folder) as python:
        return ask(python, release, torch)


def ask(python: Path, release: Release, torch: str, surfaces: Sequence[Surface] = SURFACES) -> Look:
    """What an import shows to this Python. Raises NoWheelError where it does not answer."""
    names = "\n".join(dict.fromkeys(name for surface in surfaces for name in surface.names))
    # Isolated, so that it sees nothing of ours.
    command = [str(python), "-I", str(_IMPORTED)]
    done = subprocess.run(
        command, input=names, capture_output=True, text=True, check=False, timeout=_IMPORT_SECONDS
    )
    if done.returncode:
        raise NoWheelError(f"importing ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    found = {name: _found(one) for name, one in answer["found"].items()}
    return Look(
        release.distribution,
        release.version,
        torch,
        problems(surfaces, found),
        imported=answer["modules"],
        not_imported=answer["errors"],
    )


def problems(surfaces: Iterable[Surface], found: Mapping[str, Found | str]) -> dict[str, list[str]]:
    """What is not as we need it, each sentence once, by use. What was not looked at is no problem."""
    said: dict[str, dict[str, None]] = {}
    for surface in surfaces:
        looked = [problem(surface, name, found[name]) for name in surface.names if name in found]
        wrong = [sentence for sentence in looked if sentence is not None]
        # One that is right under any of its names is right; and what cannot be seen may be.
        if wrong and len(wrong) == len(surface.names):
            said.setdefault(surface.use.value, {})["; ".join(wrong)] = None
    return {use: list(sentences) for use, sentences in said.items()}


def _is_of_cache(expression: str) -> bool:
    """Whether an expression takes the cache apart, or is an order of its dimensions: others only mend strides."""
    return "kv_cache" in expression or expression[:2].removeprefix("(").isdigit()


# Any: JSON.
def _found(answer: Any) -> Found | str:
    if isinstance(answer, str):
        return answer
    parameters = answer.get("parameters")
    return Found(
        None if parameters is None else tuple(parameters),
        answer.get("takes_any", False),
        answer.get("value", ""),
    )
