"""A running vLLM engine in, the same with wrong positions out: the product knows nothing of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

ROPE, SHIFTED = "engine-rope", "engine-positions"
_FACTOR = 10.0


# Any: runners and modules of vLLM and torch.
@contextmanager
def position_fault(name: str, runner: Any) -> Iterator[None]:
    """Within it RoPE turns by ten times its θ, or decoded tokens lie one place too far from their prompt."""
    if name == ROPE:
        kept = [(one, one.base, one.cos_sin_cache.clone()) for one in _rotary(runner.model)]
        for module, base, _ in kept:
            module.base = base * _FACTOR
            module.cos_sin_cache.copy_(module._compute_cos_sin_cache())  # noqa: SLF001 vLLM has no other way
        try:
            yield
        finally:
            for module, base, cache in kept:
                module.base = base
                module.cos_sin_cache.copy_(cache)
    elif name == SHIFTED:
        hook = runner.model.register_forward_pre_hook(_shifting(runner), with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
    else:
        yield


def _rotary(model: Any) -> list[Any]:
    """Every embedding of positions once: layers share it."""
    found = {id(module): module for module in model.modules() if hasattr(module, "cos_sin_cache")}
    if not found:
        raise ValueError("the model has no module with a cos_sin_cache: it must turn positions by RoPE")
    return list(found.values())


def _shifting(runner: Any) -> Any:
    def shift(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        batch = runner.input_batch
        count = batch.num_reqs
        is_decoded = batch.num_computed_tokens_cpu[:count] >= batch.num_prompt_tokens[:count]
        rows = runner.query_start_loc.np[:count][np.asarray(is_decoded)].tolist()
        positions = kwargs["positions"].clone()
        positions[rows] += 1
        return args, kwargs | {"positions": positions}

    return shift
