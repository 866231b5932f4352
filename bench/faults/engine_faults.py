"""A running vLLM engine in, the same with a fault in its sampler or its cache out; the product knows nothing of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

WRONG_GREEDY = 0.05
SCALE = 1.5
_FEWEST_BLOCKS = 2  # in a shorter prompt there is nothing to exchange


# Any: classes, tensors and engines of vLLM and torch.
@contextmanager
def sampler_fault(name: str) -> Iterator[None]:
    """Within it the sampler divides logits by another temperature, or takes the second-likeliest greedy token."""
    import torch
    from vllm.v1.sample.sampler import Sampler

    if name == "greedy":
        attribute, random = "greedy_sample", np.random.default_rng(0)
        original = Sampler.greedy_sample

        def replaced(logits: Any) -> Any:
            best = logits.topk(2, dim=-1).indices
            is_wrong = torch.from_numpy(random.random(len(best)) < WRONG_GREEDY)
            return torch.where(is_wrong, best[:, 1], best[:, 0])

    elif name.startswith("temperature-"):
        attribute, factor = "apply_temperature", float(name.removeprefix("temperature-"))
        original = Sampler.apply_temperature

        def replaced(logits: Any, temperature: Any, *args: Any) -> Any:  # type: ignore[misc]  # another method's shape
            return original(logits, temperature * factor, *args)

    else:
        yield
        return
    setattr(Sampler, attribute, staticmethod(replaced))
    try:
        yield
    finally:
        setattr(Sampler, attribute, staticmethod(original))


class CacheFault:
    """Spoils blocks of the cache of each request, once, after its prompt was read and before it goes on."""

    def __init__(self, name: str, runner: Any) -> None:
        self._spoil: Callable[[Any, Sequence[int]], None] | None = {
            "kv-swapped": _swap,
            "kv-stale": _make_stale,
            "kv-scaled": _scale,
        }.get(name)
        self._runner = runner
        self._spoiled: set[str] = set()

    def after_step(self, block_size: int) -> None:
        """Looks which requests have been read since the last call."""
        if self._spoil is None:
            return
        batch = self._runner.input_batch
        for row, key in enumerate(batch.req_ids):
            computed = int(batch.num_computed_tokens_cpu[row]) + 1
            if key in self._spoiled or computed < int(batch.num_prompt_tokens[row]):
                continue
            self._spoiled.add(key)
            full = int(batch.num_prompt_tokens[row]) // block_size
            if full < _FEWEST_BLOCKS:
                continue
            table = batch.block_table[0].get_numpy_array()[row, :full].tolist()
            for cache in self._runner.kv_caches:
                self._spoil(cache, table)


def _swap(cache: Any, blocks: Sequence[int]) -> None:
    """The first two blocks change places: each key and value is read for another position's."""
    first, second = blocks[:2]
    cache[[first, second]] = cache[[second, first]]


def _make_stale(cache: Any, blocks: Sequence[int]) -> None:
    """The second block holds what was there for somebody else."""
    cache[blocks[1]] = cache[(blocks[1] + 40) % max(blocks[1], 80)]


def _scale(cache: Any, blocks: Sequence[int]) -> None:
    """Keys and values of one block are too large."""
    cache[blocks[1]] *= SCALE
