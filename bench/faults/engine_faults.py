"""A running vLLM engine in, the same with a fault in its sampler or its cache out; the product knows nothing of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np

WRONG_GREEDY = 0.05
_FIRST_TOKEN = 1000
SCALE = 1.5
_FEWEST_BLOCKS = 2  # in a shorter prompt there is nothing to exchange
_DONORS = 2  # one whose block others get, and another whose block that one gets


# Any: classes, tensors and engines of vLLM and torch.
@contextmanager
def sampler_fault(name: str) -> Iterator[list[bool]]:
    """Within it the sampler takes another temperature, the second-likeliest greedy token, or the same few in turn.

    Of greedy tokens it says which are wrong, in the order in which they are drawn.
    """
    import torch
    from vllm.v1.sample.sampler import Sampler

    wrong: list[bool] = []
    if name == "greedy":
        attribute, random = "greedy_sample", np.random.default_rng(0)
        original = Sampler.greedy_sample

        def replaced(logits: Any) -> Any:
            best = logits.topk(2, dim=-1).indices
            drawn = random.random(len(best)) < WRONG_GREEDY
            wrong.extend(drawn.tolist())
            return torch.where(torch.from_numpy(drawn), best[:, 1], best[:, 0])

    elif name.startswith("temperature-"):
        attribute, factor = "apply_temperature", float(name.removeprefix("temperature-"))
        original = Sampler.apply_temperature

        def replaced(logits: Any, temperature: Any, *args: Any) -> Any:  # type: ignore[misc]  # another method's shape
            return original(logits, temperature * factor, *args)

    elif name.startswith("loop-"):
        attribute, tokens = "greedy_sample", cycle(range(_FIRST_TOKEN, _FIRST_TOKEN + int(name[5:])))
        original = Sampler.greedy_sample

        def replaced(logits: Any) -> Any:
            return torch.full((len(logits),), next(tokens))

    else:
        yield wrong
        return
    setattr(Sampler, attribute, staticmethod(replaced))
    try:
        yield wrong
    finally:
        setattr(Sampler, attribute, staticmethod(original))


class CacheFault:
    """Spoils blocks of the cache of each request, once, after its prompt was read and before it goes on."""

    def __init__(self, name: str, runner: Any) -> None:
        self._spoil = _SPOILED.get(name)
        self._runner = runner
        self._spoiled: set[str] = set()
        # What the second block of the first two requests held, layer by layer, before anything was done to it.
        self._held: dict[str, list[Any]] = {}

    def after_step(self, block_size: int) -> None:
        """Looks which requests have been read since the last call."""
        if self._spoil is None:
            return
        caches = self._runner.kv_caches
        read = dict(self._read(block_size))
        for key, blocks in read.items():
            if len(self._held) < _DONORS and key not in self._held:
                self._held[key] = [cache[blocks[1]].clone() for cache in caches]
        for key, blocks in read.items():
            foreign = next((held for other, held in self._held.items() if other != key), None)
            if foreign is None and self._spoil is _make_foreign:
                continue  # until there is another request
            self._spoiled.add(key)
            for layer, cache in enumerate(caches):
                self._spoil(cache, blocks, None if foreign is None else foreign[layer])

    def _read(self, block_size: int) -> Iterator[tuple[str, list[int]]]:
        """Requests whose prompt was read and that are not spoilt yet, with the blocks that it fills."""
        batch = self._runner.input_batch
        for row, key in enumerate(batch.req_ids):
            computed = int(batch.num_computed_tokens_cpu[row]) + 1
            prompt = int(batch.num_prompt_tokens[row])
            full = prompt // block_size
            if key not in self._spoiled and computed >= prompt and full >= _FEWEST_BLOCKS:
                yield key, batch.block_table[0].get_numpy_array()[row, :full].tolist()


def _swap(cache: Any, blocks: Sequence[int], _: Any) -> None:
    """The first two blocks change places, keys with values: attention adds up whatever order they are in.

    No output changes, as positions are in the keys. It is kept to show what is told of it, and counts as no fault.
    """
    first, second = blocks[:2]
    cache[[first, second]] = cache[[second, first]]


def _make_stale(cache: Any, blocks: Sequence[int], _: Any) -> None:
    """The second block holds what was there for somebody else."""
    cache[blocks[1]] = cache[(blocks[1] + 40) % max(blocks[1], 80)]


def _scale(cache: Any, blocks: Sequence[int], _: Any) -> None:
    """Keys and values of one block are too large."""
    cache[blocks[1]] *= SCALE


def _make_foreign(cache: Any, blocks: Sequence[int], foreign: Any) -> None:
    """The second block holds another request's second block, as where a table of blocks points at the wrong one."""
    cache[blocks[1]] = foreign


_SPOILED: dict[str, Callable[[Any, Sequence[int], Any], None]] = {
    "kv-swapped": _swap,
    "kv-stale": _make_stale,
    "kv-scaled": _scale,
    "kv-foreign": _make_foreign,
}
