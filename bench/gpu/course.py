"""Steps and a folder of those that are finished in; the others run, and what went wrong out."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.gpu.page import missed
from bench.gpu.running import StepError
from bench.gpu.state import State
from bench.gpu.steps import Step


# Any: a step's result, as JSON.
def go(
    steps: Sequence[Step],
    state: State,
    measure: Callable[[Step], dict[str, Any]],
    told: Callable[[dict[str, Any]], None],
    *,
    judge: bool,
) -> list[str]:
    """One sentence for each thing that went wrong. A step that failed is run again next time, the others go on.

    told: what is done with the result of each that is finished; judge: whether targets count.
    """
    problems: list[str] = []
    for step in steps:
        if step.name in state.finished():
            print(f"── {step.name}: finished before")
        else:
            print(f"── {step.name}: {step.question}", flush=True)
            try:
                state.keep(step.name, measure(step))
            except StepError as error:
                problems.append(f"{step.name} {error}")
                continue
        result = state.finished()[step.name]
        told(result)
        if judge:
            problems += [f"{step.name}: {sentence}" for sentence in missed(step, result["values"])]
    return problems
