"""A runner of vLLM in; of each layer the block table that it keeps for a step out, whatever backend reads it.

Both runners keep one for each group of layers whose blocks are given out together, at addresses that stay, in the order
of the batch, and write to it before the forward: also where a graph replays that, and where a backend's metadata has
none. Read off vLLM 0.20 to 0.33.
"""

from collections.abc import Callable
from typing import Any

from introspan.capture.taps.block_table import BlockTable, NoBlockTableError


# Any throughout: vLLM's runner and its configuration of the cache, which is there once the cache is.
class RunnerTables:
    """Of each layer the table of its group. of_group: a runner and the number of a group in, the table as it is out."""

    def __init__(self, runner: Any, of_group: Callable[[Any, int], BlockTable]) -> None:
        self._runner = runner
        self._of_group = of_group
        self._config: Any = None
        self._groups: dict[str, int] = {}

    def __call__(self, layer: str) -> BlockTable:
        """The table of a layer in the step at hand; it stays until the next one is prepared."""
        config = self._runner.kv_cache_config
        if config is not self._config:  # made anew after it was tried how much fits
            groups = enumerate(config.kv_cache_groups)
            self._groups = {name: number for number, group in groups for name in group.layer_names}
            self._config = config
        if layer not in self._groups:
            raise NoBlockTableError(f"{layer} is in no group of layers whose blocks are given out together")
        return self._of_group(self._runner, self._groups[layer])


def of_first(runner: Any, group: int) -> BlockTable:
    """The table of a V1 runner's group."""
    table = runner.input_batch.block_table[group]
    return BlockTable(table.get_device_tensor(runner.input_batch.num_reqs), int(table.block_size))


def of_second(runner: Any, group: int) -> BlockTable:
    """The table of a V2 runner's group; up to 0.25 and further it is divided as kernels want it."""
    tables = runner.block_tables
    sizes = getattr(tables, "kernel_block_sizes", tables.block_sizes)
    return BlockTable(tables.input_block_tables[group], int(sizes[group]))
