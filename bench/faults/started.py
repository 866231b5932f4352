"""vLLM servers that start from changed checkpoints, or read another request's block, in; what a canary says, out."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from bench.collector import collector
from bench.faults import tiny
from bench.faults.checkpoints import with_change, with_other_ids, with_theta
from bench.faults.ledger import Ledger
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import CACHE, NEUTRAL, SMALL, TEXT
from bench.faults.server import NAME, Found, Observed, floors, plugin, told_by_canary
from bench.faults.third_protocol import THIRD, check_third_seal, third_digest
from bench.faults.workplace import Workplace
from demo.model import cache_folder, prepare

_STARTED: Mapping[str, Any] = THIRD["started"]  # Any: JSON
_HEALTHY = "nothing"
_CACHE: tuple[str, ...] = tuple(_STARTED["cache"])
_TEXT: tuple[str, ...] = tuple(_STARTED["text"])
_HEADS, _GROUPS = 9, 3
# Of somebody else, and long enough for the second block of 32 tokens to be full.
_FOREIGN = "The inventory of the museum's cellar lists, in no order that anybody remembers, " + ", ".join(
    f"a crate of {thing} from {year}"
    for year, thing in enumerate(("glass eyes", "ship bells", "wax fruit", "brass keys", "tide tables"), 1871)
)
Make = Callable[[Path, Path], Path]


def run(workplace: Workplace) -> Result:
    """Every fault that an earlier run did not finish; then what was found of all."""
    check_third_seal()
    ledger = Ledger(workplace.folder / f"started-{third_digest()[:12]}.jsonl")
    if workplace.may_run and any(fault not in ledger for fault in _wanted()):
        with TemporaryDirectory() as folder:
            _measure(Path(folder), ledger, workplace)
    return report({fault: ledger[fault] for fault in _wanted() if fault in ledger})


def _wanted() -> tuple[str, ...]:
    return (_HEALTHY, *_CACHE, *_checkpoints())


def _checkpoints() -> dict[str, Make]:
    """What a server starts from, by fault: a function of the healthy model's folder and of the one to make."""
    small, neutral = _STARTED["small"], _STARTED["neutral"]
    changes = {
        f"noise 2^-{small['noise']}": tiny.noise(small["noise"], THIRD["seed"]),
        f"pruning, smallest, {small['pruning, smallest']:.1e}": tiny.pruned_smallest(
            small["pruning, smallest"]
        ),
        f"int8, layer {small['int8']}": tiny.int8(small["int8"]),
        f"neutral: heads permuted, layer {neutral['heads permuted']}": tiny.heads_permuted(
            neutral["heads permuted"], _HEADS, _GROUPS, THIRD["seed"]
        ),
    }
    theta, ids = _TEXT
    return {
        **{name: partial(with_change, change=change) for name, change in changes.items()},
        theta: partial(with_theta, factor=10.0),
        ids: with_other_ids,
    }


def _measure(folder: Path, ledger: Ledger, workplace: Workplace) -> None:
    say = workplace.progress.console.print
    model = prepare(cache_folder(), say)
    flag, environment = plugin(folder)
    count = _STARTED["rounds_of_a_fault"]

    def keep(fault: str, address: str) -> None:
        if fault in ledger:
            return
        ledger.put(fault, observed.rounds(address, count))
        say(f"started, {fault}: {[one['ratio'] for one in ledger[fault]]} floors")

    with collector(folder, f"[detect]\ncanary_rounds = {_STARTED['baseline_rounds']}\n") as running:
        observed = Observed(running, folder)
        with observed.server(model, environment) as address:
            observed.rounds(address, _STARTED["baseline_rounds"])
            keep(_HEALTHY, address)
            for fault in _CACHE:
                flag.write_text(fault)
                _ask(address, _FOREIGN)
                keep(fault, address)
            flag.unlink()
        for fault, make in _checkpoints().items():
            if fault in ledger or not workplace.may_run:
                continue
            changed = make(model, folder / "changed")
            with observed.server(changed, environment) as address:
                keep(fault, address)
            shutil.rmtree(changed)


def _ask(address: str, prompt: str) -> None:
    """Somebody else's request, whose block is what others get to read."""
    asked = {"model": NAME, "prompt": prompt, "max_tokens": 4}
    httpx.post(f"http://{address}/v1/completions", json=asked, timeout=60).raise_for_status()


def report(found: Mapping[str, Sequence[Found]]) -> Result:
    """The part's result, of as many faults as there are."""
    neutral = [name for name in _checkpoints() if name.startswith("neutral")]
    small = [name for name in _checkpoints() if name not in (*neutral, *_TEXT)]
    claims = [
        _told("checkpoints with noise, pruned, or with a layer in int8", small, found, SMALL),
        _pages(neutral, found),
        _told("another request's block", _CACHE, found, CACHE),
        _told("RoPE θ × 10 and another tokenizer", _TEXT, found, TEXT),
    ]
    return Result(
        f"{len(found)} of {len(_wanted())} faults, nothing among them.",
        _NOTES,
        claims,
        [Table("Rounds", _COLUMNS, [_row(fault, rounds) for fault, rounds in found.items()])],
        protocol=third_digest(),
    )


def _told(text: str, faults: Sequence[str], found: Mapping[str, Sequence[Found]], row: str) -> Claim:
    told = [_is_told(found[fault], row) for fault in faults if fault in found]
    return told_by_canary(text, told, len(faults), THIRD["targets"]["started_told"], row)


def _is_told(rounds: Sequence[Found], row: str) -> bool:
    if row == TEXT:
        return bool(rounds[0]["deviates"] and not rounds[0]["equivalent"])
    return all(one["deviates"] for one in rounds)


def _is_page(rounds: Sequence[Found]) -> bool:
    return all(one["deviates"] for one in rounds) and not rounds[-1]["equivalent"]


def _pages(faults: Sequence[str], found: Mapping[str, Sequence[Found]]) -> Claim:
    some = [found[fault] for fault in faults if fault in found]
    pages = float(sum(map(_is_page, some))) if some else None
    text = f"pages of {len(some)} neutral change in a vLLM server"
    is_complete = len(some) == len(faults)
    bound = THIRD["targets"]["neutral_pages"]
    return Claim(text, pages, bound, at_most=True, is_complete=is_complete, row=NEUTRAL)


_COLUMNS = (
    "fault", "both rounds deviate", "pages", "floors, consistency", "floors, outputs", "floors, states",
    "what it names", "mean KL, nats", "top-1",
)  # fmt: skip


def _row(fault: str, rounds: Sequence[Found]) -> list[Cell]:
    """Distances of the round that says least."""
    least = min(rounds, key=lambda one: floors(one["ratio"]))
    return [
        fault, all(one["deviates"] for one in rounds), _is_page(rounds),
        floors(least["consistency_ratio"]), floors(least["output_ratio"]),
        max(map(floors, least["layer_ratios"]), default=None),
        least["place"] or "nothing", floors(least["kl_nats"]), least["top1"],
    ]  # fmt: skip


_NOTES = (
    (
        "vLLM's OpenAI server in float32 with the product's plugin, started from the folder of each checkpoint, asked "
        "by `introspan canary` over HTTP, compared by a real collector with a baseline of 8 rounds of the healthy "
        "server: fewer than the 64 of production, so that floors mean less."
    ),
    (
        "Of each family that the part `small` sweeps it is the middle, not its largest change. All matrices have noise "
        "or their smallest weights at zero; int8 is one layer, a scale for each row."
    ),
    (
        "kv-foreign: a plugin of the bench puts the second block of another request in the place of the second block "
        "of every prompt that was read, in every layer; the repeated question then reads it from the prefix cache. "
        "Another tokenizer: every ordinary token has the id of the next. Both texts are of the same length then."
    ),
    (
        "pages: both rounds deviate, and the second changes answers by more than 10⁻³ nats or more than one likeliest "
        "token in 200."
    ),
)
