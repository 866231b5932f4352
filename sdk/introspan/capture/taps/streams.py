"""Residual streams of a running forward in, the rows asked for out, in buffers made when the model was loaded.

The hooks only call an operator that writes into preallocated buffers, so they trace into a compiled graph; which rows
it copies, and to where in the buffer, is set from outside before each step. How that is told, and the copying itself,
has two forms: `host_streams.py` where Python runs each forward, `static_streams.py` where a graph may replay it.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.taps.host_streams import HostStreams
from introspan.capture.taps.static_rows import is_recorded
from introspan.capture.taps.static_streams import StaticStreams

CHECK_ROWS = 8
"""Rows of which the norms' outputs are kept for the self-check."""

Write = Callable[[nn.Module, torch.Tensor, torch.Tensor, int], None]
"""Module, stream, what its norm made of it, number of the tap; called in the forward."""


class StreamRows(Protocol):
    """The buffers of all taps, and how the taps are told what to copy; the methods are those of `Taps`."""

    @property
    def write(self) -> Write:
        """What the hooks call. A plain function, since it is traced."""

    @property
    def failed(self) -> bool:
        """See `Taps`."""

    def attach(self, module: nn.Module, tap: int) -> None:
        """Gives a tapped module what a compiled graph has to reach through it."""

    def select(self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool) -> None:
        """See `Taps`."""

    def deselect(self) -> None:
        """See `Taps`."""

    def silent(self) -> list[int]:
        """The numbers of the taps that `Taps.silent` names by layer."""

    def complete(self) -> bool:
        """See `Taps`."""

    def was_silent(self) -> bool:
        """See `Taps`."""

    def silent_steps(self) -> torch.Tensor | None:
        """See `Taps`."""

    def kept(self, taps: int, count: int) -> torch.Tensor:
        """The first rows of the first taps, [count, taps, width] in the model's dtype, where they are."""

    def rows(self, taps: int, count: int) -> torch.Tensor:
        """The same, float32."""

    def of(self, tap: int, start: int, stop: int) -> torch.Tensor:
        """Some of one tap's rows, [stop − start, width]."""

    def outputs_of(self, tap: int, count: int) -> torch.Tensor:
        """What the norm made of one tap's first rows, [count, width]."""


class Taps:
    """The tapped points of one model.

    The first `always` points copy in every step with rows, those after them only where it is asked for.
    rows_max is the largest number of rows kept at once. They are kept for each tap as [rows_max, hidden size] in the
    model's dtype, allocated here. The hooks stay for the life of the model. static: whether a graph can record them;
    None: where the device's forwards may be replayed from one.
    """

    def __init__(
        self,
        points: list[StreamPoint],
        rows_max: int,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
        health: Health,
        always: int | None = None,
        *,
        static: bool | None = None,
    ) -> None:
        self.points = points
        self._always = len(points) if always is None else always
        shape = (rows_max, CHECK_ROWS, hidden_size)
        self._form: StreamRows = (
            StaticStreams(len(points), self._always, shape, dtype, device, health)
            if (is_recorded(device) if static is None else static)
            else HostStreams(len(points), self._always, shape, dtype, health)
        )
        for tap, point in enumerate(points):
            self._form.attach(point.module, tap)
            _hook(point, self._form.write, tap)

    def select(self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool = False) -> None:
        """Asks for these token rows (int64 [n]) of the next forward, to be put into the buffers from start on.

        with_output: also for what the norms make of the first CHECK_ROWS of them. everywhere: at all points; as
        with the outputs, which are looked at once.
        """
        self._form.select(index, start, with_output=with_output, everywhere=everywhere or with_output)

    def deselect(self) -> None:
        """Asks for nothing: dummy and profiling runs pass unseen."""
        self._form.deselect()

    def silent(self) -> list[int]:
        """Layers whose tap did not fire, or fired more than once, since `select`, or in a step that was silent."""
        return [self.points[tap].layer for tap in self._form.silent()]

    @property
    def failed(self) -> bool:
        """Whether a tap has raised since `select`."""
        return self._form.failed

    def complete(self) -> bool:
        """Whether every tap that was asked fired exactly once since `select`: only then the buffers hold its rows.

        To be called once in a step, before `deselect`. Where only the device knows, the answer is True and
        `was_silent` has it later.
        """
        return self._form.complete()

    def was_silent(self) -> bool:
        """Whether a step was not complete that `complete` took for one; to be asked when rows are read."""
        return self._form.was_silent()

    def silent_steps(self) -> torch.Tensor | None:
        """In how many steps that `complete` took for complete each tap was silent, int64 [taps] on the device.

        Counted from the beginning, for those who do not wait for `was_silent`; None where `complete` knows.
        """
        return self._form.silent_steps()

    def kept(self, count: int, *, everywhere: bool = False) -> torch.Tensor:
        """As `rows`, in the model's dtype, on the device where they are."""
        return self._form.kept(len(self.points) if everywhere else self._always, count)

    def rows(self, count: int, *, everywhere: bool = False) -> torch.Tensor:
        """The first rows of the buffers, float32 [count, taps, hidden size]; the next step writes over them.

        Of the points that always copy, or everywhere of all.
        """
        return self._form.rows(len(self.points) if everywhere else self._always, count)

    def not_finite(self, start: int, count: int) -> list[int]:
        """Which of these rows have a NaN or ±Inf at the deepest point that always copies, counted from start.

        A sum adds values to it, so whatever is not finite before stays so; and one sum of a row says it. Waits for the
        forward.
        """
        deepest = self._form.of(self._always - 1, start, start + count)
        sums = deepest.sum(dim=1, dtype=torch.float32)
        return [row for row, total in enumerate(sums.tolist()) if not math.isfinite(total)]

    def tapped(self, tap: int, count: int) -> torch.Tensor:
        """One tap's first rows, [count, hidden size] in the model's dtype."""
        return self._form.of(tap, 0, count)

    def outputs(self, tap: int, count: int) -> torch.Tensor:
        """What the tap's norm made of its rows, [count, hidden size] in the model's dtype."""
        return self._form.outputs_of(tap, count)


def _hook(point: StreamPoint, write: Write, tap: int) -> None:
    if point.form is Form.NORM:
        point.module.register_forward_hook(_norm_hook(write, tap))
    elif point.form is Form.NORM_INPUT:
        point.module.register_forward_hook(_norm_input_hook(write, tap))
    elif point.form is Form.HANDED_ON:
        point.module.register_forward_hook(_handed_on_hook(write, tap))
    else:
        point.module.register_forward_pre_hook(_layer_hook(write, tap), with_kwargs=True)


# Any: what a host's module takes and returns. A form that is not understood is left alone: the tap stays silent,
# and the first step's check says so. Nothing here may raise, or branch on values, since it is traced.
def _norm_hook(write: Write, tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            if len(output) == 2 and isinstance(output[1], torch.Tensor):
                write(module, output[1], output[0], tap)
        elif len(args) == 1 and isinstance(output, torch.Tensor):
            write(module, args[0], output, tap)

    return hook


def _norm_input_hook(write: Write, tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        normed = output[0] if isinstance(output, tuple) else output
        if len(args) > 0 and isinstance(normed, torch.Tensor):
            write(module, args[0], normed, tap)

    return hook


def _handed_on_hook(write: Write, tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 - torch's signature
        parts = getattr(output, "tensors", {})
        stream, residual = parts.get("hidden_states"), parts.get("residual")
        if isinstance(stream, torch.Tensor):
            stream = stream if residual is None else stream + residual
            write(module, stream, stream, tap)

    return hook


def _layer_hook(write: Write, tap: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = kwargs.get("hidden_states")
        if stream is None:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
            stream = tensors[0] if len(tensors) == 1 else None
        if stream is not None:
            write(module, stream, stream, tap)

    return hook
