"""Attention calls of a running forward in; query rows, outputs and block tables of the rows asked for out.

The attention call is opaque to the compiler, so replacing `impl.forward` on the instance leaves the graph as it is.
The wrapper only gathers rows into buffers made when the model was loaded; statistics are computed after the step.
"""

import time
from typing import Any

import torch

from introspan.capture.anatomy import AttentionPoint
from introspan.capture.health import Health


class AttentionTap:
    """One layer's tapped attention; q and output are [rows_max, heads, d] in the model's dtype."""

    def __init__(
        self,
        point: AttentionPoint,
        rows_max: int,
        dtype: torch.dtype,
        device: torch.device,
        health: Health,
    ) -> None:
        impl = point.module.impl
        self.point = point
        self.layer = point.layer
        self.index: torch.Tensor | None = None
        self.start = 0
        self.with_output = False
        self.fired = 0
        self.failed = False
        self.block_table: torch.Tensor | None = None
        self.q = torch.zeros(rows_max, impl.num_heads, impl.head_size, dtype=dtype, device=device)
        self.output = torch.zeros_like(self.q)
        self._original = impl.forward
        self._health = health
        impl.forward = self._forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self._original(*args, **kwargs)
        if self.index is not None:
            started_ns = time.perf_counter_ns()
            try:
                self._record(args, kwargs)
            except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
                self.index = None
                self.failed = True
                self._health.error("attention", error)
            self._health.capture_ns += time.perf_counter_ns() - started_ns
        return result

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Positional since vLLM 0.9.2: layer, query, key, value, kv_cache, attn_metadata.
        query, metadata = args[1], args[5]
        if metadata is None:  # a profiling run
            return
        assert self.index is not None
        start, stop = self.start, self.start + self.index.numel()
        if query.dim() != 3:
            query = query.view(-1, *self.q.shape[1:])
        torch.index_select(query, 0, self.index, out=self.q[start:stop])
        if self.with_output:
            output = kwargs["output"].view(-1, *self.q.shape[1:])
            torch.index_select(output, 0, self.index, out=self.output[start:stop])
        self.block_table = metadata.block_table
        self.fired += 1

    def select(self, index: torch.Tensor, start: int, *, with_output: bool) -> None:
        """Asks for these token rows (int64 [n]) of the next forward, to be put into the buffers from start on."""
        self.start = start
        self.fired = 0
        self.failed = False
        self.block_table = None
        self.with_output = with_output
        self.index = index

    def deselect(self) -> None:
        """Asks for nothing."""
        self.index = None
        self.block_table = None
