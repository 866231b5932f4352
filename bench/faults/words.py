"""Claims and cells in, the words of the page out."""

from collections.abc import Sequence

from bench.faults.result import Cell, Claim

_THOUSAND = 1000.0


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table of Markdown, after an empty line."""
    lines = [list(columns), ["---"] * len(columns), *([text(cell) for cell in row] for row in rows)]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def text(value: Cell) -> str:
    """A cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < _THOUSAND else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    # A bar would end the cell.
    return str(value).replace("|", "\\|")


def figure(claim: Claim) -> tuple[str, str]:
    """What was measured, and its interval."""
    if claim.low is None or claim.high is None:
        return text(claim.measured), ""
    return text(claim.measured), f"{text(claim.low)} to {text(claim.high)}"


def target(claim: Claim) -> str:
    """The bound, "none" where none was set."""
    return "none" if claim.bound is None else f"{'≤' if claim.at_most else '≥'} {text(claim.bound)}"


def outcome(claim: Claim) -> str:
    """Whether the bound is kept."""
    if claim.bound is None:
        return "none set"
    if claim.measured is None:
        return "**not measured**"
    if claim.is_met:
        return "met" if claim.is_complete else "kept so far, **incomplete**"
    missed = f"**missed by {text(claim.missed_by)}**"
    return missed if claim.is_complete else f"{missed}, incomplete"
