"""Residual streams of a running forward in, the rows asked for out, in buffers made when the model was loaded.

The hooks only call an operator that writes into a preallocated buffer, so they trace into a compiled graph; which rows
it copies, and to where in the buffer, is set from outside before each step. A CUDA graph could record the operation,
but not this use of it: the index is a new tensor and the destination another slice each time, and Python decides
whether anything is copied.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from introspan.capture.anatomy import Form, StreamPoint
from introspan.capture.health import Health

CHECK_ROWS = 8
"""Rows of which the norms' outputs are kept for the self-check."""


@dataclass(slots=True)
class _Selection:
    """Which rows the operator copies now. One per process: the operator is looked up by name, not by object."""

    index: torch.Tensor | None = None
    into: tuple[torch.Tensor, ...] = ()
    outputs_into: tuple[torch.Tensor, ...] = ()
    fired: list[int] = field(default_factory=list)
    failed: bool = False
    health: Health | None = None


_selection = _Selection()
_library: torch.library.Library | None = None


def _copy_rows(
    stream: torch.Tensor,
    output: torch.Tensor,
    rows: torch.Tensor,  # noqa: ARG001 - written through `_selection`, but a compiler must know that it is
    outputs: torch.Tensor,  # noqa: ARG001 - the same
    tap: int,
) -> None:
    selection = _selection
    index, health = selection.index, selection.health
    if index is None or health is None or tap >= len(selection.into):
        return
    started_ns = time.perf_counter_ns()
    try:
        torch.index_select(stream, 0, index, out=selection.into[tap])
        if selection.outputs_into:
            torch.index_select(output, 0, index[:CHECK_ROWS], out=selection.outputs_into[tap])
        selection.fired[tap] += 1
    except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
        selection.index = None
        selection.failed = True
        health.error("residual", error)
    health.capture_ns += time.perf_counter_ns() - started_ns


def _copy_rows_fake(*_: object) -> None:
    """Shapes are unchanged: what the compiler needs to know of the operator."""


def register_operator(dispatch_key: str = "CPU") -> None:
    """Makes `torch.ops.introspan.tap` known; calling it again does nothing."""
    global _library  # noqa: PLW0603 - an operator lives as long as its library, that is, as the process
    if _library is not None:
        return
    # Any: torch.library is not typed.
    library: Any = torch.library.Library("introspan", "FRAGMENT")  # type: ignore[no-untyped-call]  # the same
    library.define("tap(Tensor stream, Tensor output, Tensor(a!) rows, Tensor(b!) outputs, int tap) -> ()")
    library.impl("tap", _copy_rows, dispatch_key=dispatch_key)
    library._register_fake("tap", _copy_rows_fake)  # noqa: SLF001 - the public decorator needs the global namespace
    _library = library


class Taps:
    """The tapped points of one model.

    The first `always` points copy in every step with rows, those after them only where it is asked for.
    rows_max is the largest number of rows kept at once. They are kept in [taps, rows_max, hidden size] in the model's
    dtype, allocated here. The hooks stay for the life of the model.
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
    ) -> None:
        register_operator(device.type.upper())
        self.points = points
        self._always = len(points) if always is None else always
        self._health = health
        self._rows = torch.zeros(len(points), rows_max, hidden_size, dtype=dtype, device=device)
        self._outputs = torch.zeros(len(points), CHECK_ROWS, hidden_size, dtype=dtype, device=device)
        for tap, point in enumerate(points):
            self._attach(tap, point)

    def _attach(self, tap: int, point: StreamPoint) -> None:
        # What a compiled graph is told that the operator writes to: views of one tensor would look to it as if each
        # tap wrote to all. Not persistent, so no checkpoint ever holds them.
        for name in ("introspan_rows", "introspan_outputs"):
            point.module.register_buffer(name, torch.zeros(1, device=self._rows.device), persistent=False)
        if point.form is Form.NORM:
            point.module.register_forward_hook(_norm_hook(tap))
        elif point.form is Form.NORM_INPUT:
            point.module.register_forward_hook(_norm_input_hook(tap))
        elif point.form is Form.HANDED_ON:
            point.module.register_forward_hook(_handed_on_hook(tap))
        else:
            point.module.register_forward_pre_hook(_layer_hook(tap), with_kwargs=True)

    def select(self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool = False) -> None:
        """Asks for these token rows (int64 [n]) of the next forward, to be put into the buffers from start on.

        with_output: also for what the norms make of the first CHECK_ROWS of them. everywhere: at all points; as
        with the outputs, which are looked at once.
        """
        count = index.numel()
        taps = len(self.points) if everywhere or with_output else self._always
        _selection.into = self._rows[:taps, start : start + count].unbind()
        _selection.outputs_into = self._outputs[:, :count].unbind() if with_output else ()
        _selection.fired = [0] * len(self.points)
        _selection.failed = False
        _selection.health = self._health
        _selection.index = index

    def deselect(self) -> None:
        """Asks for nothing: dummy and profiling runs pass unseen."""
        _selection.index = None

    def silent(self) -> list[int]:
        """Layers whose tap did not fire, or fired more than once, since `select`."""
        return [point.layer for tap, point in enumerate(self.points) if _selection.fired[tap] != 1]

    @property
    def failed(self) -> bool:
        """Whether a tap has raised since `select`."""
        return _selection.failed

    def complete(self) -> bool:
        """Whether every tap fired exactly once since `select`: only then do the buffers hold the step's rows."""
        taps = len(_selection.into)
        return _selection.fired[:taps] == [1] * taps

    def rows(self, count: int, *, everywhere: bool = False) -> torch.Tensor:
        """The first rows of the buffers, float32 [count, taps, hidden size]; the next step writes over them.

        Of the points that always copy, or everywhere of all.
        """
        taps = len(self.points) if everywhere else self._always
        return self._rows[:taps, :count].transpose(0, 1).float()

    def not_finite(self, start: int, count: int) -> list[int]:
        """Which of these rows have a NaN or ±Inf at the deepest point that always copies, counted from start.

        A sum adds values to it, so whatever is not finite before stays so; and one sum of a row says it.
        """
        sums = self._rows[self._always - 1, start : start + count].sum(dim=1, dtype=torch.float32)
        return [row for row, total in enumerate(sums.tolist()) if not math.isfinite(total)]

    def tapped(self, tap: int, count: int) -> torch.Tensor:
        """One tap's first rows, [count, hidden size] in the model's dtype."""
        return self._rows[tap, :count]

    def outputs(self, tap: int, count: int) -> torch.Tensor:
        """What the tap's norm made of its rows, [count, hidden size] in the model's dtype."""
        return self._outputs[tap, :count]


def _tap(module: nn.Module, stream: torch.Tensor, output: torch.Tensor, tap: int) -> None:
    # Dispatching to an operator takes longer than what it does, and so does looking buffers up: only a compiler needs
    # either.
    if not torch.compiler.is_compiling():
        _copy_rows(stream, output, stream, output, tap)
        return
    # Any: registered buffers.
    rows: Any = module.introspan_rows
    outputs: Any = module.introspan_outputs
    torch.ops.introspan.tap(stream, output, rows, outputs, tap)


# Any: what a host's module takes and returns. A form that is not understood is left alone: the tap stays silent,
# and the first step's check says so. Nothing here may raise, or branch on values, since it is traced.
def _norm_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            if len(output) == 2 and isinstance(output[1], torch.Tensor):
                _tap(module, output[1], output[0], tap)
        elif len(args) == 1 and isinstance(output, torch.Tensor):
            _tap(module, args[0], output, tap)

    return hook


def _norm_input_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        normed = output[0] if isinstance(output, tuple) else output
        if len(args) > 0 and isinstance(normed, torch.Tensor):
            _tap(module, args[0], normed, tap)

    return hook


def _handed_on_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 - torch's signature
        parts = getattr(output, "tensors", {})
        stream, residual = parts.get("hidden_states"), parts.get("residual")
        if isinstance(stream, torch.Tensor):
            stream = stream if residual is None else stream + residual
            _tap(module, stream, stream, tap)

    return hook


def _layer_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = kwargs.get("hidden_states")
        if stream is None:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
            stream = tensors[0] if len(tensors) == 1 else None
        if stream is not None:
            _tap(module, stream, stream, tap)

    return hook
