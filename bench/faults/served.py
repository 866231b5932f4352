"""A real vLLM server in which something is done to the cache or the chat template in, what its canary says out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.collector import collector
from bench.faults.ledger import Ledger
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import CACHE, TEXT
from bench.faults.second_protocol import SECOND, check_second_seal, second_digest
from bench.faults.server import Found, Observed, floors, plugin, told_by_canary
from bench.faults.workplace import Workplace
from demo.model import cache_folder, prepare

_SERVED: Mapping[str, Any] = SECOND["served"]  # Any: JSON
_TEMPLATE = "chat template"
_HEALTHY = "nothing"
_OTHER_TEMPLATE = """\
{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}
{% endfor %}assistant:"""


def run(workplace: Workplace) -> Result:
    """Every fault that an earlier run did not finish; then what was found of all."""
    check_second_seal()
    ledger = Ledger(workplace.folder / f"served-{second_digest()[:12]}.jsonl")
    wanted = (_HEALTHY, *_SERVED["faults"])
    if workplace.may_run and any(fault not in ledger for fault in wanted):
        with TemporaryDirectory() as folder:
            _measure(Path(folder), ledger, workplace)
    return report({fault: ledger[fault] for fault in wanted if fault in ledger})


def _measure(folder: Path, ledger: Ledger, workplace: Workplace) -> None:
    say = workplace.progress.console.print
    model = prepare(cache_folder(), say)
    flag, environment = plugin(folder)
    template = folder / "other.jinja"
    template.write_text(_OTHER_TEMPLATE)
    count = _SERVED["rounds_of_a_fault"]
    with collector(folder, f"[detect]\ncanary_rounds = {_SERVED['baseline_rounds']}\n") as running:
        observed = Observed(running, folder)
        with observed.server(model, environment) as address:
            observed.rounds(address, _SERVED["baseline_rounds"])
            for fault in (_HEALTHY, *(one for one in _SERVED["faults"] if one != _TEMPLATE)):
                flag.write_text(fault)
                ledger.put(fault, observed.rounds(address, count))
                say(f"served, {fault}: {[one['ratio'] for one in ledger[fault]]} floors")
        flag.unlink()
        with observed.server(model, environment, "--chat-template", str(template)) as address:
            ledger.put(_TEMPLATE, observed.rounds(address, count))


def report(found: Mapping[str, Sequence[Found]]) -> Result:
    """The part's result, of as many faults as there are."""
    rows: list[list[Cell]] = [_row(fault, rounds) for fault, rounds in found.items()]
    claims = [
        _claim("faults of the cache", [one for one in _SERVED["faults"] if one != _TEMPLATE], found, CACHE),
        _claim("another chat template", [_TEMPLATE], found, TEXT),
    ]
    return Result(
        f"{len(found)} of {len(_SERVED['faults']) + 1} faults, nothing among them.",
        _NOTES,
        claims,
        [Table("Rounds", _COLUMNS, rows)],
        protocol=second_digest(),
    )


def _claim(text: str, faults: Sequence[str], found: Mapping[str, Sequence[Found]], row: str) -> Claim:
    told = [_is_told(found[fault], row) for fault in faults if fault in found]
    return told_by_canary(text, told, len(faults), SECOND["targets"]["served_told"], row)


def _is_told(rounds: Sequence[Found], row: str) -> bool:
    return all(one["deviates"] for one in (rounds[:1] if row == TEXT else rounds))


_COLUMNS = (
    "fault", "round", "deviates", "floors, consistency", "floors, outputs", "floors, states", "what it names",
    "mean KL, nats",
)  # fmt: skip


def _row(fault: str, rounds: Sequence[Found]) -> list[Cell]:
    """The round that says least."""
    least = min(rounds, key=lambda one: floors(one["ratio"]))
    return [
        fault, f"the weaker of {len(rounds)}", least["deviates"],
        floors(least["consistency_ratio"]), floors(least["output_ratio"]),
        max(map(floors, least["layer_ratios"]), default=None),
        least["place"] or "nothing", floors(least["kl_nats"]),
    ]  # fmt: skip


_NOTES = (
    (
        "vLLM's OpenAI server in float32 with the product's plugin, asked by `introspan canary` over HTTP, "
        "compared by a real collector with a baseline of 8 rounds: fewer than the 64 of production, so that "
        "floors mean less."
    ),
    (
        "kv-stale, kv-scaled: a plugin of the bench overwrites the second block of 32 tokens of a prompt that was "
        "read with what is elsewhere in the cache, or multiplies it by 1.5, in every layer; the repeated question "
        "then reads it from the prefix cache. Another chat template: the server is started with it."
    ),
    (
        "A damaged layer, a sampler at 1.5 times the temperature and a change of traffic go from fault to alert "
        "in a real server in `tests/e2e/test_detection.py`."
    ),
)
