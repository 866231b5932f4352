"""Residual streams of a running forward in, the rows asked for out, in buffers made when the model was loaded.

The hooks only call an operator that writes into a preallocated buffer, so they trace into a compiled graph and
could be recorded in a CUDA graph; which rows it copies is set from outside before each step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from introspan.capture.anatomy import Form, StreamPoint


@dataclass(slots=True)
class _Selection:
    """Which rows the operator copies now. One per process: the operator is looked up by name, not by object."""

    index: torch.Tensor | None = None
    count: int = 0
    with_output: bool = False
    fired: dict[int, int] = field(default_factory=dict)
    on_error: Callable[[BaseException], None] | None = None


_selection = _Selection()
_library: torch.library.Library | None = None


def _copy_rows(
    stream: torch.Tensor, output: torch.Tensor, rows: torch.Tensor, outputs: torch.Tensor, tap: int
) -> None:
    selection = _selection
    if selection.index is None:
        return
    try:
        torch.index_select(stream, 0, selection.index, out=rows[: selection.count])
        if selection.with_output:
            torch.index_select(output, 0, selection.index, out=outputs[: selection.count])
        selection.fired[tap] = selection.fired.get(tap, 0) + 1
    except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
        selection.index = None
        if selection.on_error is not None:
            selection.on_error(error)


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

    rows_max is the largest number of rows a step can ask for. Buffers are [rows_max, hidden size] in the
    model's dtype, one a tap, allocated here.
    """

    def __init__(
        self,
        points: list[StreamPoint],
        rows_max: int,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
        on_error: Callable[[BaseException], None],
    ) -> None:
        register_operator(device.type.upper())
        self.points = points
        self._on_error = on_error
        self._rows = [torch.zeros(rows_max, hidden_size, dtype=dtype, device=device) for _ in points]
        self._outputs = [torch.zeros(rows_max, hidden_size, dtype=dtype, device=device) for _ in points]
        self._handles = [self._attach(tap, point) for tap, point in enumerate(points)]

    def _attach(self, tap: int, point: StreamPoint) -> Any:
        # A compiled graph finds the buffers through the module; not persistent, so no checkpoint ever holds them.
        point.module.register_buffer("introspan_rows", self._rows[tap], persistent=False)
        point.module.register_buffer("introspan_outputs", self._outputs[tap], persistent=False)
        if point.form is Form.NORM:
            return point.module.register_forward_hook(_norm_hook(tap))
        if point.form is Form.NORM_INPUT:
            return point.module.register_forward_hook(_norm_input_hook(tap))
        return point.module.register_forward_pre_hook(_layer_hook(tap), with_kwargs=True)

    def detach(self) -> None:
        """Takes the hooks off again. A graph compiled meanwhile keeps calling the operator, which does nothing."""
        for handle in self._handles:
            handle.remove()
        self.deselect()

    def select(self, index: torch.Tensor, *, with_output: bool) -> None:
        """Asks for these token rows (int64 [n]) of the next forward, with what the norms make of them if wanted."""
        _selection.count = index.numel()
        _selection.with_output = with_output
        _selection.fired = {}
        _selection.on_error = self._on_error
        _selection.index = index

    def deselect(self) -> None:
        """Asks for nothing: dummy and profiling runs pass unseen."""
        _selection.index = None

    def silent(self) -> list[int]:
        """Layers whose tap did not fire, or fired more than once, since `select`."""
        return [point.layer for tap, point in enumerate(self.points) if _selection.fired.get(tap, 0) != 1]

    def rows(self, count: int) -> torch.Tensor:
        """The streams of the last forward, float32 [count, taps, hidden size]."""
        return torch.stack([rows[:count] for rows in self._rows], dim=1).float()

    def tapped(self, tap: int, count: int) -> torch.Tensor:
        """One tap's rows of the last forward, [count, hidden size] in the model's dtype."""
        return self._rows[tap][:count]

    def outputs(self, tap: int, count: int) -> torch.Tensor:
        """What the tap's norm made of its rows, [count, hidden size] in the model's dtype."""
        return self._outputs[tap][:count]


# Any: what a host's module takes and returns. A form that is not understood is left alone: the tap stays silent,
# and the first step's check says so. Nothing here may raise, or branch on values, since it is traced.
def _norm_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            if len(output) == 2 and isinstance(output[1], torch.Tensor):
                torch.ops.introspan.tap(
                    output[1], output[0], module.introspan_rows, module.introspan_outputs, tap
                )
        elif len(args) == 1 and isinstance(output, torch.Tensor):
            torch.ops.introspan.tap(args[0], output, module.introspan_rows, module.introspan_outputs, tap)

    return hook


def _norm_input_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        normed = output[0] if isinstance(output, tuple) else output
        if len(args) > 0 and isinstance(normed, torch.Tensor):
            torch.ops.introspan.tap(args[0], normed, module.introspan_rows, module.introspan_outputs, tap)

    return hook


def _layer_hook(tap: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = kwargs.get("hidden_states")
        if stream is None:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
            stream = tensors[0] if len(tensors) == 1 else None
        if stream is not None:
            torch.ops.introspan.tap(stream, stream, module.introspan_rows, module.introspan_outputs, tap)

    return hook
