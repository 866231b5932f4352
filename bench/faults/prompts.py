"""A server that reads its prompts wrongly in, whether the canary tells within one round out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bench.faults import questions
from bench.faults.forward import Plan
from bench.faults.protocol import PROTOCOL
from bench.faults.questions import Messages, Tokenization
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import TEXT
from bench.faults.store import Sample
from bench.faults.subject import Subject
from bench.faults.trial import Trial
from bench.faults.workplace import Run, Workplace

_POSITIONS = ("RoPE θ × 10", "positions + 1, all", "positions + 1, decoded tokens")
_TEXTS = (
    "double BOS",
    "no chat template",
    "other tokenizer: no merges",
    "other tokenizer: ids + 1",
    "system prompt dropped",
)
_NEUTRAL = "positions + 1, all"


def run(workplace: Workplace) -> Result:
    """Every fault in each dtype."""
    trials = []
    for dtype in PROTOCOL["dtypes"]:
        runs: list[tuple[str, Run]] = [
            (name, partial(_sample, workplace, dtype, name)) for name in (*_POSITIONS, *_TEXTS)
        ]
        trials += workplace.trials("prompts", dtype, runs)
    return report(trials)


def _sample(workplace: Workplace, dtype: str, name: str) -> Sample:
    subject = workplace.subject(dtype)
    rounds = PROTOCOL["rounds_of_a_trial"]
    if name == "RoPE θ × 10":
        with _theta(subject, 10.0):
            drawn = subject.asked_otherwise(subject.plan, 0, rounds)
    elif name in _POSITIONS:
        moved = (1, 0) if name == _NEUTRAL else (0, 1)
        drawn = subject.asked_otherwise(lambda draw: subject.plan(draw).moved(*moved), 0, rounds)
    else:
        drawn = subject.asked_otherwise(_otherwise(subject, name), 0, rounds)
    return Sample("prompts", name, dtype, None, is_other=False, rounds=drawn)


@contextmanager
def _theta(subject: Subject, factor: float) -> Iterator[None]:
    """Frequencies of a base that is `factor` times as large."""
    rotary = subject.model.model.rotary_emb
    healthy = rotary.inv_freq.clone()
    # Frequency i is θ^(−i/n).
    exponent = healthy.new_tensor(range(len(healthy))) / len(healthy)
    rotary.inv_freq.copy_(healthy * factor**-exponent)
    try:
        yield
    finally:
        rotary.inv_freq.copy_(healthy)


def _otherwise(subject: Subject, name: str) -> Callable[[int], Plan]:
    texts = questions.requests(questions.prompts(_wrong(subject, name)), subject.generated)
    return lambda draw: subject.plan(draw, texts)


def _wrong(subject: Subject, name: str) -> Tokenization:
    healthy, tokenizer = subject.tokenization, subject.tokenizer

    def no_merges(text: str) -> list[int]:
        # Every byte is a token of its own.
        return [one for character in text for one in healthy.ids(character)]

    def without_system(messages: Messages) -> str:
        return healthy.chat([one for one in messages if one["role"] != "system"])

    size = int(subject.model.config.vocab_size)
    return {
        "double BOS": Tokenization(
            lambda text: [int(tokenizer.bos_token_id), *healthy.ids(text)], healthy.chat
        ),
        "no chat template": Tokenization(
            healthy.ids, lambda messages: "\n".join(one["content"] for one in messages)
        ),
        "other tokenizer: no merges": Tokenization(no_merges, healthy.chat),
        "other tokenizer: ids + 1": Tokenization(
            lambda text: [(i + 1) % size for i in healthy.ids(text)], healthy.chat
        ),
        "system prompt dropped": Tokenization(healthy.ids, without_system),
    }[name]


def report(trials: Sequence[Trial]) -> Result:
    """The part's result, of as many trials as there are."""
    faults = [trial for trial in trials if trial.name != _NEUTRAL]
    told = [trial.rounds[0].deviates and not trial.rounds[0].equivalent for trial in faults]
    neutral = [trial for trial in trials if trial.name == _NEUTRAL]
    bound = PROTOCOL["targets"]["text_within_one_round"]
    total = len(PROTOCOL["dtypes"]) * len((*_POSITIONS, *_TEXTS))
    is_complete = len(trials) >= total
    claims = [
        Claim(
            f"faults that one round tells ({sum(told)} of {len(told)})",
            sum(told) / len(told) if told else None, bound, is_complete=is_complete, row=TEXT,
        ),
        Claim(
            "pages of all positions + 1, which changes nothing under RoPE",
            float(sum(trial.pages for trial in neutral)),
            PROTOCOL["targets"]["neutral_pages"], at_most=True, is_complete=is_complete, row=TEXT,
        ),
    ]  # fmt: skip
    rows = [_row(trial) for trial in trials]
    missed = [trial for trial, is_told in zip(faults, told, strict=True) if not is_told]
    return Result(
        f"{len(trials)} of {total} trials of the protocol are in it.",
        (*_NOTES, *map(_miss, missed)),
        claims,
        [Table("Faults", _COLUMNS, rows)],
    )


_COLUMNS = (
    "dtype", "fault", "one round deviates", "pages", "floors, outputs", "floors, states", "what it names",
    "mean KL, nats",
)  # fmt: skip


def _row(trial: Trial) -> list[Cell]:
    first = trial.rounds[0]
    return [
        trial.dtype, trial.name, first.deviates, trial.pages, first.output_ratio, max(first.state_ratio),
        first.place or "nothing", first.kl_nats,
    ]  # fmt: skip


def _miss(trial: Trial) -> str:
    first = trial.rounds[0]
    why = (
        f"it deviates by {first.distance:,.3g} floors and is taken for equivalent, as the answers' divergence is "
        f"{first.kl_nats:.1g} nats of the 0.001 that it takes and {first.top1:.1%} of likeliest tokens stay"
        if first.deviates
        else f"it is {first.distance:.3g} floors off, of the 8 that it takes"
    )
    return f"Missed: {trial.name} in {trial.dtype}: {why}. Nothing was tried on it."


_NOTES = (
    (
        "Texts are compared token by token, as the API returns them: a prompt that was read as other tokens is "
        "told from any other cause, and its distance is infinite. Internals add nothing to that, output alone "
        "tells it too."
    ),
    (
        "RoPE turns queries and keys by the difference of their positions: to add 1 to all of them is no fault, "
        "and only rounding differs. To add it to decoded tokens alone is one, as prompt and answer then lie one "
        "position too far apart."
    ),
    (
        "Forwards of Hugging Face's modules, as in the part `layers`. Another chat template in a real server is "
        "in the part `served`."
    ),
)
