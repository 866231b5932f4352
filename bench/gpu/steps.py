"""Nothing in, the steps of `python -m bench.gpu` and what each is held against out."""

from dataclasses import dataclass

from bench.gpu.scale import FULL
from bench.parts import Target

LIMIT_SECONDS = 600.0
"""Longest that a step may take: it is ended then, and counts as failed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its module has `run(scale, *arguments) -> dict`, whose values are numbers, text or such dicts."""

    name: str
    module: str
    question: str
    arguments: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


def _at_most(key: str, bound: float, unit: str = "") -> Target:
    return Target(key, bound, at_most=True, unit=unit)


def _cost(model: str, context: str, level: str) -> Step:
    bound = 1.01 if level == "defaults" else 1.10
    ratios = tuple(_at_most(f"batch_{batch}.tpot_ratio_high", bound) for batch in _batches(context))
    return Step(
        f"cost-{model}-{context}-{level}",
        "bench.gpu.cost",
        f"What does Introspan at {level} cost a Llama of {model} behind {context} tokens, CUDA graphs on?",
        (model, context, level),
        (*ratios, _at_most("memory.more_mib", 64, "MiB")),
    )


def _batches(context: str) -> tuple[int, ...]:
    # 128 requests of 8,192 tokens have more keys and values than fit beside a second engine on one GPU.
    return tuple(batch for batch in FULL.batches if batch * FULL.contexts[context] <= 16 * 8192)


_CORRECT = (
    Step("environment", "bench.gpu.environment", "What is it run on?"),
    Step(
        "parity",
        "bench.gpu.parity",
        "Do captured values equal those that Hugging Face transformers computes on the same device?",
        targets=(
            *(_at_most(f"{signal}.largest", bound) for signal, bound in FULL.tolerances.items()),
            _at_most("signals_off", 0),
        ),
    ),
    Step(
        "tokens",
        "bench.gpu.sameness",
        "Eager: does the served model answer the same with Introspan as without?",
        ("eager",),
        (_at_most("differing_tokens", 0),),
    ),
    Step(
        "compiled",
        "bench.gpu.sameness",
        "Compiled, CUDA graphs on: does it change log-probabilities more than running again does?",
        ("compiled",),
    ),
    Step(
        "replay",
        "bench.gpu.replay",
        "Is every token measured, by every probe, where decoding is replayed from a full CUDA graph?",
        targets=(
            *(
                _at_most(f"{probe}.{what}", 0)
                for probe in ("residual", "attention", "output")
                for what in ("unmeasured_rows", "stale_rows")
            ),
            _at_most("signals_off", 0),
        ),
    ),
    Step(
        "sampler",
        "bench.gpu.sampler",
        "Do drawn tokens look drawn, and greedy ones likeliest, to the signals that say so?",
        targets=(
            # One in a thousand runs misses it where all is well.
            Target("pit.p", 0.001, at_most=False, unit=""),
            _at_most("pit.unmeasured", 0),
            _at_most("greedy.mismatches", 0),
            _at_most("greedy.unmeasured", 0),
        ),
    ),
    Step(
        "waiting",
        "bench.gpu.waiting",
        "Does anything of ours wait for the device while it serves, and on which line?",
        targets=tuple(
            target
            for level in ("defaults", "everything")
            for target in (
                _at_most(f"{level}.waits", 0),
                _at_most(f"{level}.signals_off", 0),
                Target(f"{level}.measured_rows", 1, at_most=False, unit="rows"),
            )
        ),
    ),
    Step(
        "fusion",
        "bench.gpu.fusion",
        "Does the compiler fuse what it fuses without Introspan?",
        targets=(_at_most("lost", 0, "patterns"),),
    ),
)
_COSTS = tuple(
    _cost(model, context, level)
    for model in FULL.models
    for context in FULL.contexts
    for level in ("defaults", "everything")
)
_OTHERS = (
    Step("thread", "bench.gpu.thread", "What does our work take of the model's thread, and of the device?"),
    Step(
        "ladder", "bench.gpu.ladder", "What does each rung of the ladder cost, down to a step without graphs?"
    ),
    Step(
        "alternatives",
        "bench.gpu.alternatives",
        "What do other ways to hidden states cost, in the same run?",
        ("1b", "512"),
    ),
)

STEPS = {step.name: step for step in (*_CORRECT, *_COSTS, *_OTHERS)}
"""Every step by name, in the order they run."""

SMOKE = {
    step.name: step
    for step in (
        Step(
            "attention",
            "bench.gpu.checks.attention",
            "Do the kernels of attention compute here what torch does?",
        ),
        Step("rows", "bench.gpu.checks.rows", "Do those of streams, logits and gathered rows?"),
        Step("taps", "bench.gpu.checks.taps", "Do taps work in a graph that is replayed?"),
        Step("served", "bench.gpu.checks.served", "Does every signal come of a served model?"),
    )
}
"""What `--smoke` looks at: `run` of these gives the outcome of each check by its name."""
