"""Attention calls of a running forward in; query rows, outputs and block tables of the rows asked for out.

The attention call is opaque to the compiler, so replacing `impl.forward` on the instance leaves the graph as it is.
The wrapper only gathers rows into buffers made when the model was loaded; statistics are computed after the step. Where
a graph may replay the call, without the wrapper, it gathers always, by operations that are recorded with the call's.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch

from introspan.capture.health import Health
from introspan.capture.model.anatomy import AttentionPoint
from introspan.capture.taps.block_table import TablesOf
from introspan.capture.taps.static_rows import StaticRows, copy_rows, is_recorded
from introspan.observation import Disabled


class AttentionTap:
    """One layer's tapped attention; q and output are [rows_max, heads, d] in the model's dtype.

    buffers: memory for q and output; None: of its own.
    """

    sees_block_tables = True
    """Whether Python of ours runs in every forward, and so sees where its keys are."""

    def __init__(
        self,
        point: AttentionPoint,
        rows_max: int,
        dtype: torch.dtype,
        device: torch.device,
        health: Health,
        buffers: tuple[torch.Tensor, torch.Tensor] | None = None,
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
        shape = (rows_max, impl.num_heads, impl.head_size)
        q, output = buffers or (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.q, self.output = q.view(shape), output.view(shape)
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

    def complete(self) -> bool:
        """Whether the tap fired exactly once since `select`; to be asked once in a step, before `deselect`.

        Where only the device knows, the answer is True unless the step is one with outputs, and `was_silent` has it.
        """
        return self.fired == 1

    def was_silent(self) -> bool:
        """Whether the tap did not fire in a step that `complete` took for one; to be asked when rows are read."""
        return False


class StaticAttentionTap(AttentionTap):
    """One of several taps that a graph can record; they share `static`, in which this one has a place.

    All of them are to be asked for the same rows. Where a forward is replayed no Python sees its block tables, and not
    every backend has one: `take_block_tables` hands them in after the step.
    """

    sees_block_tables = False

    def __init__(
        self,
        point: AttentionPoint,
        rows_max: int,
        static: StaticRows,
        place: int,
        health: Health,
    ) -> None:
        self.static = static
        self._place = place
        buffers = static.buffers[place]
        super().__init__(
            point, rows_max, buffers.rows.dtype, buffers.rows.device, health, (buffers.rows, buffers.outputs)
        )

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self._original(*args, **kwargs)
        if self._health.is_on("attention"):
            started_ns = time.perf_counter_ns()
            try:
                self._record(args, kwargs)
            except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
                if not self.failed:
                    self._health.error("attention", error)
                self.failed = True
            self._health.capture_ns += time.perf_counter_ns() - started_ns
        return result

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Whatever is asked for: what is left out now is never in the graph.
        query, output = args[1], kwargs["output"]
        if output.dtype.itemsize == 1:  # of four bits two make one: it would be read beyond its end
            detail = f"the backend's output is quantised ({output.dtype}), and cannot be recomputed"
            self._health.refuse(Disabled("attention", "unsupported_attention", detail))
            return
        copy_rows(query.flatten(1), output.flatten(1), self.static.buffers[self._place])

    def select(self, index: torch.Tensor, start: int, *, with_output: bool) -> None:
        """Asks for these token rows (int64 [n], on the host) of the next forward; the first tap's ask is for all."""
        super().select(index, start, with_output=with_output)
        if self.static.asked is not index:
            self.static.select(index, start, with_output=with_output, everywhere=False, checked_start=start)

    def deselect(self) -> None:
        """Asks for nothing."""
        super().deselect()
        self.static.deselect()

    def complete(self) -> bool:
        """Whether the tap fired exactly once since `select`, in a step with outputs; else True, see `was_silent`."""
        if self.with_output:
            return self._place not in self.static.silent()
        return self.static.complete()

    def was_silent(self) -> bool:
        """Whether the tap did not fire in a step that `complete` took for one. Waits for the device."""
        return self.static.was_silent() and self._place in self.static.silent()


def tap_attention(
    points: Sequence[AttentionPoint],
    rows_max: int,
    dtype: torch.dtype,
    device: torch.device,
    health: Health,
    *,
    static: bool | None = None,
) -> list[AttentionTap]:
    """Taps these layers. static: whether a graph can record it; None: where the device's forwards may be replayed."""
    if not (is_recorded(device) if static is None else static):
        return [AttentionTap(point, rows_max, dtype, device, health) for point in points]
    widths = [point.module.impl.num_heads * point.module.impl.head_size for point in points]
    rows = StaticRows(widths, len(points), rows_max, rows_max, dtype, device)
    return [StaticAttentionTap(point, rows_max, rows, place, health) for place, point in enumerate(points)]


def take_block_tables(taps: Sequence[AttentionTap], tables: TablesOf) -> None:
    """Hands in the block tables of a step.

    To be called between the forward and `AttentionProbe.take_in`, where no Python of ours ran in the forward.
    """
    for tap in taps:
        block_size = tap.point.module.kv_cache.shape[2]
        tap.block_table = tables(tap.point.module.layer_name).divided(block_size)


def static_rows_of(taps: Sequence[AttentionTap]) -> StaticRows:
    """What the taps have in common that a graph can record; taps that it cannot are an error."""
    own = {id(tap.static): tap.static for tap in taps if isinstance(tap, StaticAttentionTap)}
    if len(own) != 1 or not all(isinstance(tap, StaticAttentionTap) for tap in taps):
        raise ValueError(
            "attention is computed on a device from taps that a graph can record; tap_attention makes such ones"
        )
    return next(iter(own.values()))
