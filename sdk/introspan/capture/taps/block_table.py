"""Block tables as an engine keeps them in; ids of blocks as caches are divided into them out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class NoBlockTableError(ValueError):
    """It is not known which blocks hold a layer's keys; its attention cannot be measured."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """Which blocks hold the keys of requests. ids: int [requests, blocks], in the order of the batch.

    block_size: keys that an id stands for, which may be those of several blocks of a cache, one behind the other.
    """

    ids: Tensor
    block_size: int

    def of(self, batch: Tensor) -> "BlockTable":
        """The rows of some requests, by their places in the batch; batch: int64, where the ids are."""
        return BlockTable(self.ids.index_select(0, batch), self.block_size)

    def divided(self, block_size: int) -> Tensor:
        """The same for a cache whose blocks hold so many keys. Raises NoBlockTableError where they cannot be told."""
        parts, rest = divmod(self.block_size, block_size)
        if rest or not parts:
            raise NoBlockTableError(
                f"an id of the engine's block tables stands for {self.block_size} keys, a block of the cache holds "
                f"{block_size}: which blocks hold a request's keys is not known"
            )
        if parts == 1:
            return self.ids
        inside = torch.arange(parts, dtype=self.ids.dtype, device=self.ids.device)
        return (self.ids.unsqueeze(2) * parts + inside).flatten(1)


TablesOf = Callable[[str], BlockTable]
"""The table of a layer in the step at hand, by the layer's name; may raise NoBlockTableError."""
