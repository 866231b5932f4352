"""Names on standard input, one a line; what they are in the packages that are installed here out, as JSON.

A program of its own, which is run by the Python of another environment: it imports nothing of ours. Names are
`module:name` or `module:Class.member`. A member that only an object has, not its class, is left out of the answer: an
import does not show it. Where a module cannot be imported the answer has the reason under `errors`.
"""

import importlib
import inspect
import json
import os
import sys
from typing import Any


# Any throughout: whatever modules have.
def look(names: list[str]) -> dict[str, Any]:
    """`found`: what is there by name, or a sentence on what is not; `modules`: how many were imported.

    `errors`: why others could not be.
    """
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    modules: set[str] = set()
    for name in names:
        module, _, path = name.partition(":")
        if module in errors:
            continue
        try:
            owner = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                found[name] = f"{module} is not there"
            else:
                errors[module] = f"{type(error).__name__}: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever a module does where it is not at home
            errors[module] = f"{type(error).__name__}: {error}"
        else:
            modules.add(module)
            answer = _described(owner, module, path)
            if answer is not None:
                found[name] = answer
    return {"found": found, "modules": len(modules), "errors": errors}


def _described(owner: Any, module: str, path: str) -> Any:
    outer, _, member = path.partition(".")
    thing = getattr(owner, outer, None) if path else owner
    if thing is None:
        return f"{module} has no {outer}"
    if not member:
        return _as_found(thing, bound=False)
    if not hasattr(thing, member):
        return {} if member in _fields(thing) else None
    static = inspect.isfunction(inspect.getattr_static(thing, member, None))
    return _as_found(getattr(thing, member), bound=static)


def _fields(cls: Any) -> set[str]:
    """Fields of a class that have no default, which makes them no attributes of it."""
    annotated = {name for one in inspect.getmro(cls) for name in vars(one).get("__annotations__", {})}
    return annotated | set(getattr(cls, "__struct_fields__", ()))


def _as_found(thing: Any, *, bound: bool) -> dict[str, Any]:
    """bound: the first parameter is the object's own."""
    if isinstance(thing, str):
        return {"value": thing}
    if not inspect.isroutine(thing):
        return {}
    kinds = inspect.Parameter
    parameters = list(inspect.signature(thing).parameters.values())[bound:]
    return {
        "parameters": [
            one.name for one in parameters if one.kind not in {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD}
        ],
        "takes_any": any(one.kind is kinds.VAR_KEYWORD for one in parameters),
    }


def main() -> None:
    """Answers on standard output, to which nothing that is imported writes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(look(sys.stdin.read().split()), answers)
    answers.close()


if __name__ == "__main__":
    main()
