"""Results of all parts in, the table of faults with target, figure and outcome out, and what internals add."""

from collections.abc import Iterator, Mapping

from bench.faults.parts import PARTS
from bench.faults.result import Cell, Claim, Result
from bench.faults.rows import ROWS
from bench.faults.words import figure, outcome, table, target

_COLUMNS = ("injected fault", "what is claimed", "target", "measured", "95 %", "outcome", "part")


def overview(results: Mapping[str, Result]) -> Iterator[str]:
    """A line for every target, in the order of the table of faults; one for each part without results in its rows."""
    claims = list(_claims(results, is_gain=False))
    rows: list[list[Cell]] = []
    silent = 0
    for fault in ROWS:
        some = [(part, claim) for part, claim in claims if claim.row == fault]
        # The fault is named once.
        names = [fault, *[""] * (len(some) - 1)]
        rows += [
            [name, claim.text, target(claim), *figure(claim), outcome(claim), f"[{part}](#{part})"]
            for name, (part, claim) in zip(names, some, strict=False)
        ]
        absent = [part for part in PARTS.values() if part.name not in results and fault in part.rows]
        rows += [
            [
                "" if some or i else fault,
                "all that this part claims",
                "",
                None,
                "",
                "**not measured**",
                part.name,
            ]
            for i, part in enumerate(absent)
        ]
        silent += len(absent)
    known = [claim for _, claim in claims if claim.bound is not None]
    met = sum(claim.is_met and claim.is_complete for claim in known)
    partly = [claim for claim in known if not claim.is_complete and claim.measured is not None]
    kept = sum(claim.is_met for claim in partly)
    nothing = sum(claim.measured is None for claim in known)
    missed = len(known) - met - len(partly) - nothing
    nothing += silent
    yield "\n## Every target\n"
    yield (
        f"\n{met} of {len(known) + silent} targets are met, {missed} are missed, {nothing} are not measured. "
        f"{len(partly)} are measured in part: {kept} are kept so far, {len(partly) - kept} are not.\n"
    )
    yield table(_COLUMNS, rows)


def gains(results: Mapping[str, Result]) -> Iterator[str]:
    """What internals add to what an API tells, where they add nothing too."""
    yield "\n## What internals add to outputs alone\n"
    yield (
        "\nThe same test, budget, prompts and choice of settings without what is inside the model. Where the interval "
        "holds 0, internals add nothing there that could be told.\n"
    )
    claims = sorted(_claims(results, is_gain=True), key=lambda one: ROWS.index(one[1].row))
    rows: list[list[Cell]] = []
    named = ""
    for part, claim in claims:
        # The fault is named once.
        name, named = "" if claim.row == named else claim.row, claim.row
        rows.append([name, claim.text, *figure(claim), _verdict(claim), f"[{part}](#{part})"])
    yield table(("injected fault", "gain", "measured", "95 %", "internals", "part"), rows)


def _claims(results: Mapping[str, Result], *, is_gain: bool) -> Iterator[tuple[str, Claim]]:
    for part, result in results.items():
        for claim in result.claims:
            if claim.row and claim.is_gain is is_gain:
                yield part, claim


def _verdict(claim: Claim) -> str:
    if claim.measured is None:
        return "not measured"
    if claim.low is None or claim.high is None:
        return "too few to say"
    said = "add" if claim.low > 0 else "take away" if claim.high < 0 else "add nothing"
    return said if claim.is_complete else f"{said}, incomplete"
