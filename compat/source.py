"""The Python files of a package that need not be importable in; what its modules, classes and functions have out.

Names are followed through imports and base classes within the package, as far as they are written there.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from compat.surface import Found

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEPTH = 12
"""Imports of imports that are followed: a cycle ends somewhere."""


class Source:
    """One package. root: the folder that the package's own is in."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._module = functools.cache(self._parse)

    def find(self, name: str) -> Found | str:
        """What `module`, `module:name` or `module:Class.member` is, or why it is not there."""
        module, _, path = name.partition(":")
        if self._module(module) is None:
            return f"{module} is not there"
        if not path:
            return Found()
        outer, _, member = path.partition(".")
        found = self._top(module, outer)
        if found is None:
            return f"{module} has no {outer}"
        where, node = found
        if member:
            inner = self._member(where, node, member) if isinstance(node, ast.ClassDef) else None
            return f"{module}:{outer} has no {member}" if inner is None else _described(inner, of_class=True)
        return _described(node, of_class=False)

    def assigned(self, module: str, names: tuple[str, ...]) -> set[str]:
        """The expressions, as written, that a module assigns to these names together: `a, b = expression`."""
        tree = self._module(module)
        assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)] if tree else []
        return {ast.unparse(node.value) for node in assignments if _targets(node) == names}

    def _file(self, module: str) -> Path | None:
        path = self._root.joinpath(*module.split("."))
        candidates = (path.with_suffix(".py"), path / "__init__.py")
        return next((one for one in candidates if one.is_file()), None)

    def _parse(self, module: str) -> ast.Module | None:
        path = self._file(module)
        return None if path is None else ast.parse(path.read_text(encoding="utf-8"))

    def _top(self, module: str, name: str, depth: int = 0) -> tuple[str, ast.AST] | None:
        """A name of a module, and the module that it is written in."""
        tree = self._module(module)
        if tree is None or depth > _DEPTH:
            return None
        for node in _statements(tree.body):
            if isinstance(node, _Definition) and node.name == name:
                return module, node
            if name in _targets(node):
                return module, node
            if isinstance(node, ast.ImportFrom):
                imported = {one.asname or one.name: one.name for one in node.names}
                found = None
                if name in imported or "*" in imported:
                    found = self._top(self._absolute(module, node), imported.get(name, name), depth + 1)
                if found is not None or name in imported:
                    return found or (module, node)
        return None

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        path = self._file(module)
        assert path is not None, "it was parsed"
        parts = module.split(".")
        base = parts[: len(parts) - node.level + (path.name == "__init__.py")]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _member(self, module: str, node: ast.ClassDef, name: str, depth: int = 0) -> ast.AST | None:
        """A method, field or attribute of a class, its own or inherited; also one that only a method assigns."""
        for statement in node.body:
            if (isinstance(statement, _Definition) and statement.name == name) or name in _targets(statement):
                return statement
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and inner.attr == name and _is_assigned_to_self(inner):
                return inner
        for base in node.bases if depth <= _DEPTH else ():
            written = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            found = self._top(module, written)
            if found is not None and isinstance(found[1], ast.ClassDef):
                inherited = self._member(found[0], found[1], name, depth + 1)
                if inherited is not None:
                    return inherited
        return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under conditions and in `try` too."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, _Definition):
                yield from _statements(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _targets(node: ast.AST) -> tuple[str, ...]:
    """What a statement assigns to, as written."""
    if isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in getattr(target, "elts", [target])]
        return tuple(ast.unparse(part) for part in parts)
    return (ast.unparse(node.target),) if isinstance(node, ast.AnnAssign) else ()


def _is_assigned_to_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _described(node: ast.AST, *, of_class: bool) -> Found:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return Found(value=str(node.value.value))
    if not isinstance(node, _FUNCTIONS):
        return Found()
    decorators = {ast.unparse(one) for one in node.decorator_list}
    if decorators & {"property", "cached_property", "functools.cached_property"}:
        return Found()
    arguments = node.args
    positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    bound = positional[1:] if of_class and "staticmethod" not in decorators else positional
    return Found((*bound, *(one.arg for one in arguments.kwonlyargs)), arguments.kwarg is not None)
