"""A Dockerfile in, its stages and what they say out: as much of the format as ours use."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it: (instruction, arguments) in order."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        """The arguments of each instruction of a kind."""
        return [arguments for kind, arguments in self.instructions if kind == instruction]

    def last(self, instruction: str) -> str:
        """The arguments of the one that is in force."""
        return self.all(instruction)[-1]

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = " ".join(self.all("ENV")).split()
        return dict(pair.split("=", 1) for pair in pairs)

    def health_command(self) -> list[str]:
        """What HEALTHCHECK runs."""
        command: list[str] = json.loads(self.last("HEALTHCHECK").partition("CMD ")[2])
        return command


def stages(path: Path) -> dict[str, Stage]:
    """The stages by name, in order."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    found: dict[str, Stage] = {}
    for kind, arguments in lines:
        if kind == "FROM":
            base, _, name = arguments.partition(" AS ")
            found[name] = Stage(name, base, ())
        elif found:
            last = list(found.values())[-1]
            found[last.name] = Stage(last.name, last.base, (*last.instructions, (kind, arguments)))
    return found
