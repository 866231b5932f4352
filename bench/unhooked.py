"""An engine with Introspan in it in; the same engine without it, for a while, out.

Two processes of one engine differ by more than what hooks cost that measure nothing, so that these have to be taken out
of the engine they are in. Only an eager engine can be had back: a compiled graph has the taps' operators in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from introspan.capture.runner.v1_runner import METHODS


# Any throughout: vLLM's engine and modules.
@contextmanager
def unhooked(engine: Any) -> Iterator[None]:
    """Takes wrapped methods of the runner, hooks of the model and wrappers of attention away, and puts them back.

    Raises RuntimeError where there is nothing of each kind to take away: it would be measured against itself.
    """
    runner = engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    modules = list(runner.get_model().modules())
    attention = [layer.impl for layer in runner.compilation_config.static_forward_context.values()]
    wrapped = [(runner, name) for name in METHODS if name in vars(runner)]
    wrapped += [(impl, "forward") for impl in attention if "forward" in vars(impl)]
    hooks = [
        (table, key, hook)
        for module in modules
        for table in (module._forward_hooks, module._forward_pre_hooks)  # noqa: SLF001 - torch has no list of hooks
        for key, hook in table.items()
        if hook.__module__.startswith("introspan.")
    ]
    if len(wrapped) <= len(METHODS) or not hooks:
        raise RuntimeError(
            f"{len(wrapped)} wrapped methods and {len(hooks)} hooks: Introspan is not in this engine"
        )
    methods = [(owner, name, vars(owner)[name]) for owner, name in wrapped]
    for owner, name, _ in methods:
        delattr(owner, name)
    for table, key, _ in hooks:
        del table[key]
    try:
        yield
    finally:
        for owner, name, method in methods:
            setattr(owner, name, method)
        for table, key, hook in hooks:
            table[key] = hook
