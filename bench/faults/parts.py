"""The parts of `make bench-faults`: each injects faults of some kinds, and says what was caught."""

from dataclasses import dataclass

from bench.faults import rows


@dataclass(frozen=True, slots=True)
class Part:
    """One program of bench/faults/: its module has `run(workplace: Workplace) -> Result`."""

    name: str
    module: str
    question: str
    rows: tuple[str, ...]
    """Rows of the table of faults that it has claims in."""


PARTS = {
    part.name: part
    for part in (
        Part(
            "layers",
            "bench.faults.layers",
            "One layer is damaged: is the canary's alarm there within two rounds, and does it name that layer?",
            (rows.LAYER,),
        ),
        Part(
            "prompts",
            "bench.faults.prompts",
            "Positions, tokenizer or chat template are wrong: does one round of the canary tell?",
            (rows.TEXT,),
        ),
        Part(
            "cache",
            "bench.faults.cache",
            "The prefix cache holds something else than was put there: does the canary tell?",
            (rows.CACHE,),
        ),
        Part(
            "served",
            "bench.faults.served",
            "The same in a real vLLM server, and a server with another chat template: does its canary tell?",
            (rows.CACHE, rows.TEXT),
        ),
        Part(
            "started",
            "bench.faults.started",
            "A vLLM server starts from a changed checkpoint, or reads another request's block: does its canary tell?",
            (rows.SMALL, rows.NEUTRAL, rows.CACHE, rows.TEXT),
        ),
        Part(
            "small",
            "bench.faults.small",
            "All weights change a little: who tells it better from a healthy model, the canary or output alone?",
            (rows.SMALL, rows.NEUTRAL),
        ),
        Part(
            "sampler",
            "bench.faults.sampler",
            "The sampler draws otherwise than asked, or the answer is a loop: after how many tokens is it noticed?",
            (rows.SAMPLER, rows.GREEDY, rows.LOOP),
        ),
        Part(
            "requests",
            "bench.faults.requests",
            "A request is unlike healthy ones, or its cache was spoilt: is it told from them, better than by output?",
            (rows.CACHE, rows.CONTENT),
        ),
        Part(
            "shares",
            "bench.faults.shares",
            "A share of all requests is faulty, or the chat template is wrong: after how many requests is it noticed?",
            (rows.TEMPLATE, rows.SHARE),
        ),
        Part(
            "silence",
            "bench.faults.silence",
            "Healthy traffic comes in bursts, in other proportions each tick, in other batches: does anything alarm?",
            (rows.NULL,),
        ),
    )
}
"""Every part by name, in the order they run."""
