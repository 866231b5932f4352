"""Results of parts in, docs/detection-results.md out: every target at the top, then each part with its tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.faults.overview import gains, overview
from bench.faults.parts import PARTS, Part
from bench.faults.result import Result, load
from bench.faults.words import figure, outcome, table

_HEAD = """\
# What detection catches

Faults are injected from outside the product into the real SmolLM2-135M, and what the product says of them is held
against targets that were set before. Written by `make bench-faults` (one part alone: `make bench-faults ONLY=layers`);
do not edit. `docs/detection-results.json` has the same for programs.
"""
_PROTOCOLS = """
What was run, with which seeds, and what settings were chosen on, was written down and hashed before each run; each
section names its hash. What did not run, or only in part, says so: **incomplete** figures are of trials in random
order.
"""


# Any: a result is JSON, whose leaves are numbers and text.
def page(results: Mapping[str, Any]) -> str:
    """The page: all targets, what internals add, then a section for each part; one never measured says so."""
    loaded = {name: load(results[name]["result"]) for name in PARTS if name in results}
    where = f"\nMeasured on {_machines(results)}.\n" if results else ""
    return (
        _HEAD
        + where
        + _PROTOCOLS
        + "".join(overview(loaded))
        + "".join(gains(loaded))
        + "".join(_section(part, results.get(part.name)) for part in PARTS.values())
    )


def missed(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each target that a part's result misses."""
    return [
        f"{claim.text}: {outcome(claim)}"
        for claim in load(found["result"]).claims
        if claim.bound is not None and not (claim.is_met and claim.is_complete)
    ]


def _machines(results: Mapping[str, Any]) -> str:
    """Hardware and versions, each once where parts agree."""
    found = {
        f"{one['hardware']}; "
        + ", ".join(f"{name} {version}" for name, version in one["versions"].items()): None
        for one in results.values()
    }
    return " and on ".join(found)


def _section(part: Part, found: Mapping[str, Any] | None) -> str:
    head = f"\n## {part.name}\n\n{part.question}\n"
    if found is None:
        return f"{head}\nNot measured yet: `make bench-faults ONLY={part.name}`.\n"
    return head + "".join(_body(found, load(found["result"])))


def _body(found: Mapping[str, Any], result: Result) -> Iterator[str]:
    yield f"\nMeasured on {found['date']}, protocol `{found['protocol'][:16]}…`. {result.complete}\n"
    others: Sequence[Sequence[str]] = [
        (claim.text, *figure(claim)) for claim in result.claims if not claim.row
    ]
    if others:
        yield table(("beside the targets", "measured", "95 % interval"), others)
    for one in result.tables:
        if one.rows:
            yield f"\n### {one.title}\n" + table(one.columns, one.rows)
    yield "\n"
    yield from (f"- {note}\n" for note in result.notes)
