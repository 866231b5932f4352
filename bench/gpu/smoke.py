"""Checks of a few seconds each in; a table of what works here out: the first thing to be run on a new GPU.

Kernels against torch, taps in a graph, and a small served model with every signal. Each file of `checks/` runs in a
process of its own, since an error of the device is an error of all that its process does afterwards.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.gpu.running import StepError
from bench.gpu.steps import Step

OK = "ok"

LIMIT_SECONDS = 150.0
"""For each process; those but the last run side by side on a GPU."""


# Any: a step's values, as JSON.
def smoke(steps: Sequence[Step], measure: Callable[[Step], dict[str, Any]], at_once: int) -> int:
    """Prints how each check came out; exit code 1 where one failed, or did not come to an end.

    The last step runs alone: an engine asks how much memory is left. at_once: of the others.
    """

    def outcomes(step: Step) -> dict[str, Any]:
        try:
            return measure(step)
        except StepError as error:
            return {f"all of {step.name}": f"{error}; what it printed is above"}

    found: dict[str, Any] = {}
    with ThreadPoolExecutor(at_once) as pool:
        for each in pool.map(outcomes, steps[:-1]):
            found |= each
    found |= outcomes(steps[-1])
    wide = max(map(len, found))
    for name, outcome in found.items():
        print(f"{name:<{wide}}  {outcome if outcome == OK else f'FAILED  {outcome}'}")
    failed = [name for name, outcome in found.items() if outcome != OK]
    print(
        f"{len(found) - len(failed)} of {len(found)} checks are ok"
        + "".join(f"\n  failed: {name}" for name in failed)
    )
    return 1 if failed else 0
