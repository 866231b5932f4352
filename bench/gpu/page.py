"""Results of the steps in, docs/benchmarks-gpu.md out."""

from collections.abc import Mapping
from typing import Any

from bench.gpu.steps import STEPS, Step
from bench.page import flatten
from bench.parts import Target

_HEAD = """\
# Benchmarks on a GPU

Written by `make bench-gpu`; do not edit. Every value is what that command measured on the machine named here;
`benchmarks-gpu.json` has the same for programs.

*Off* is an engine without the plugin, *on* one with it; both live on the same GPU and work by turns, each with CUDA
graphs. A ratio is the mean of paired runs, `_low` and `_high` its 95 % interval by Student's t, and a target of a ratio
is for the upper end. What differs from one process of an engine to the next, whatever it runs, is not in the interval.
Weights of the Llamas of 8b and 1b are drawn. `more_mib` is what tensors take on the GPU more than without, once
all has run; keys and values have the same number of blocks in both.
"""


# Any: a result is JSON.
def page(stored: Mapping[str, Any]) -> str:
    """The page, with a section for each step; one that was not finished says so."""
    conditions = ", ".join(f"{name} {value}" for name, value in stored["conditions"].items())
    results: Mapping[str, Any] = stored["steps"]
    return f"{_HEAD}\nMeasured on: {conditions}.\n" + "".join(
        _section(step, results.get(step.name)) for step in STEPS.values()
    )


def missed(step: Step, values: Mapping[str, Any]) -> list[str]:
    """One sentence for each target that is missed, or has no value."""
    flat = dict(flatten(values))
    return [
        f"{target.key} must be {target}, got {flat.get(target.key, 'no value')}"
        for target in step.targets
        if not _is_met(target, flat.get(target.key))
    ]


def _is_met(target: Target, value: object) -> bool:
    return isinstance(value, int | float) and target.met(value)


def _section(step: Step, result: Mapping[str, Any] | None) -> str:
    head = f"\n## {step.name}\n\n{step.question}\n"
    if result is None:
        return f"{head}\nNot finished.\n"
    targets = {target.key: target for target in step.targets}
    rows = "".join(_row(key, value, targets.get(key)) for key, value in flatten(result["values"]))
    took = f"{result['date']}, in {result['seconds']:.0f} s."
    return f"{head}\n{took}\n\n| value | measured | target |\n| --- | ---: | --- |\n{rows}"


def _row(key: str, value: object, target: Target | None) -> str:
    verdict = "" if target is None else f"{target}, {'met' if _is_met(target, value) else '**missed**'}"
    return f"| {key} | {_text(value)} | {verdict} |\n"


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
