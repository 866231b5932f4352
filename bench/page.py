"""Results of the parts in, docs/benchmarks.md out."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.conditions import CONDITIONS
from bench.parts import PARTS, Part, Target

_HEAD = """\
# Benchmarks

Written by `make bench` (one part alone: `make bench ONLY=ingest`); do not edit. Every value is what that
command measured on the machine named beside it; `docs/benchmarks.json` has the same for programs.
"""


# Any: a result is JSON, whose leaves are numbers and text.
def page(results: Mapping[str, Any]) -> str:
    """The page, with a section for each part; one that was never measured says so."""
    return (
        _HEAD + _targets(results) + "".join(_section(part, results.get(part.name)) for part in PARTS.values())
    )


def missed(part: Part, values: Mapping[str, Any]) -> list[str]:
    """One sentence for each target that a result misses or has no value for."""
    flat = dict(flatten(values))
    return [_sentence(target, flat.get(target.key)) for target in part.targets if not _met(target, flat)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their paths, joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _met(target: Target, flat: Mapping[str, Any]) -> bool:
    value = flat.get(target.key)
    return isinstance(value, int | float) and target.met(value)


def _sentence(target: Target, value: Any) -> str:
    got = "it was not measured" if value is None else f"got {_text(value)}"
    return f"{target.key} must be {target}, {got}"


def _targets(results: Mapping[str, Any]) -> str:
    """One table of all targets, so that what is missed need not be looked for."""
    rows = []
    for part in PARTS.values():
        flat = dict(flatten(results[part.name]["values"])) if part.name in results else {}
        rows += [
            _row(f"[{part.name}](#{part.name}).{target.key}", flat.get(target.key), target)
            for target in part.targets
        ]
    return f"\n## Targets\n\n| value | measured | target |\n| --- | ---: | --- |\n{''.join(rows)}"


def _section(part: Part, result: Mapping[str, Any] | None) -> str:
    conditions = f"\n{CONDITIONS[part.name]}" if part.name in CONDITIONS else ""
    head = f"\n## {part.name}\n\n{part.question}\n{conditions}"
    if result is None:
        return f"{head}\nNot measured yet: `make bench ONLY={part.name}`.\n"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    measured = f"Measured on {result['date']}: {result['hardware']}; {versions}."
    targets = {target.key: target for target in part.targets}
    rows = "".join(_row(key, value, targets.get(key)) for key, value in flatten(result["values"]))
    return f"{head}\n{measured}\n\n| value | measured | target |\n| --- | ---: | --- |\n{rows}"


def _row(key: str, value: Any, target: Target | None) -> str:
    return f"| {key} | {_text(value)} | {'' if target is None else _verdict(target, value)} |\n"


def _verdict(target: Target, value: Any) -> str:
    if value is None:
        return f"{target}, not measured"
    of = f" by {target.of}" if target.of else ""
    return f"{target}, {'met' if _met(target, {target.key: value}) else '**missed**'}{of}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
