"""Results of parts in, docs/detection-results.md out."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.faults.parts import PARTS, Part
from bench.faults.result import Cell, Claim, Table, load

_HEAD = """\
# What detection catches

Written by `make bench-faults` (one part alone: `make bench-faults ONLY=layers`); do not edit. Faults are
injected from outside the product, and every target was set before; `docs/detection-results.json` has the same for
programs.
"""


# Any: a result is JSON, whose leaves are numbers and text.
def page(results: Mapping[str, Any]) -> str:
    """The page, with a section for each part; one that was never measured says so."""
    return _HEAD + "".join(_section(part, results.get(part.name)) for part in PARTS.values())


def missed(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each target that a part's result misses."""
    return [
        f"{claim.text}: {_outcome(claim)}"
        for claim in load(found["result"]).claims
        if not (claim.is_met and claim.is_complete)
    ]


def _section(part: Part, found: Mapping[str, Any] | None) -> str:
    head = f"\n## {part.name}\n\n{part.question}\n"
    if found is None:
        return f"{head}\nNot measured yet: `make bench-faults ONLY={part.name}`.\n"
    return head + "".join(_body(found))


def _body(found: Mapping[str, Any]) -> Iterator[str]:
    result = load(found["result"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"\nMeasured on {found['date']}: {found['hardware']}; {versions}. Protocol "
    yield f"`{found['protocol']}`, written down before the run. {result.complete}\n"
    if result.claims:
        yield "\n| claim | measured | 95 % interval | target |\n| --- | ---: | ---: | --- |\n"
        yield from map(_claim, result.claims)
    for table in result.tables:
        yield from _table(table)
    yield "\n"
    yield from (f"- {note}\n" for note in result.notes)


def _claim(claim: Claim) -> str:
    interval = "" if claim.low is None or claim.high is None else f"{claim.low:.3g} to {claim.high:.3g}"
    return f"| {claim.text} | {_text(claim.measured)} | {interval} | {_outcome(claim)} |\n"


def _outcome(claim: Claim) -> str:
    if claim.bound is None:
        return "none set"
    target = f"{'≤' if claim.at_most else '≥'} {claim.bound:g}"
    if claim.is_met:
        return f"{target}, met" if claim.is_complete else f"{target}, kept by what has run, **incomplete**"
    if claim.measured is None:
        return f"{target}, **not measured**"
    return f"{target}, **missed by {claim.missed_by:.3g}**"


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {table.title}\n\n| {' | '.join(table.columns)} |\n|{' --- |' * len(table.columns)}\n"
    yield from (f"| {' | '.join(map(_text, row))} |\n" for row in table.rows)


def _text(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.2e}"
    return str(value)
