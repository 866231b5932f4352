"""A thing of vLLM's that we rely on, and what was found of it, in; what is wrong with it, in words, out."""

from dataclasses import dataclass
from enum import Enum


class Use(Enum):
    """What is lost without a surface."""

    ATTACH = "plugin"
    CALLERS = "callers"
    V1 = "V1 runner"
    STREAM = "stream"
    ATTENTION = "attention"
    GPU = "GPU attention"
    SAMPLER = "sampler"
    WEIGHTS = "weights"
    AGAIN = "sent again"
    DOCTOR = "doctor"
    LATE = "V1 asynchronous"
    V2 = "V2 runner"
    GRAPHS = "graph modes"


@dataclass(frozen=True, slots=True)
class Surface:
    """What we use of vLLM: `module` alone, or `module:name`, or `module:Class.member`.

    leading: the names of its first parameters after self, which we give or read by place; named: parameters that we
    give by name; value: what a constant has to be. elsewhere: where other releases have it, one of which does.
    """

    use: Use
    name: str
    leading: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    value: str = ""
    elsewhere: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Where it is looked for."""
        return (self.name, *self.elsewhere)


@dataclass(frozen=True, slots=True)
class Found:
    """A thing that is there. parameters: those of a function after self, in order, None of anything else.

    takes_any: it takes any further ones by name. value: a constant's, where it is text.
    """

    parameters: tuple[str, ...] | None = None
    takes_any: bool = False
    value: str = ""


def problem(surface: Surface, name: str, found: Found | str) -> str | None:
    """What of a surface is not as we need it under one of its names, or None. found: it, or why it is not there."""
    if isinstance(found, str):
        return found
    parameters = found.parameters
    if found.value != surface.value and surface.value:
        return f"{name} is {found.value!r}, not {surface.value!r}"
    if parameters is None:
        return f"{name} is no function" if surface.leading or surface.named else None
    if parameters[: len(surface.leading)] != surface.leading:
        got = ", ".join(parameters[: len(surface.leading)])
        return f"{name} takes ({got}, …), not ({', '.join(surface.leading)}, …)"
    missing = [one for one in surface.named if one not in parameters and not found.takes_any]
    return f"{name} has no parameter {', '.join(missing)}" if missing else None
