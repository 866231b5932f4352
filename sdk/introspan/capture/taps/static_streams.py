"""Residual streams of a running forward in, the rows asked for out: the form for devices whose forwards are replayed.

Eager or compiled, the hooks call one operator whose arguments are all its state. In a graph it leaves only its kernels.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from introspan.capture.health import Health
from introspan.capture.taps.static_rows import Buffers, StaticRows, apart, copy_rows


@dataclass(slots=True)
class _Edge:
    """Who is told of errors in the operator. One per process: it is looked up by name, not by object."""

    health: Health | None = None
    failed: bool = False


_edge = _Edge()
_library: torch.library.Library | None = None
_registered: set[str] = set()


def _tap(stream: torch.Tensor, output: torch.Tensor, *buffers: torch.Tensor) -> None:
    health = _edge.health
    # Whether or not a tap has failed before: what is left out while a graph is recorded is never in it.
    if health is None or not health.is_on("residual"):
        return
    started_ns = time.perf_counter_ns()
    try:
        copy_rows(stream, output, Buffers(*buffers))
    except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
        if not _edge.failed:
            health.error("residual", error)
        _edge.failed = True
    health.capture_ns += time.perf_counter_ns() - started_ns


def _tap_fake(*_: object) -> None:
    """Shapes are unchanged: what the compiler needs to know of the operator."""


def register_operator(device: torch.device) -> None:
    """Makes `torch.ops.introspan.tap_static` known on a device; calling it again does nothing."""
    global _library  # noqa: PLW0603 - an operator lives as long as its library, that is, as the process
    key = device.type.upper()
    if key in _registered:
        return
    # Any: torch.library is not typed.
    library: Any = _library
    if library is None:
        library = torch.library.Library("introspan", "FRAGMENT")  # type: ignore[no-untyped-call]  # the same
        library.define(
            "tap_static(Tensor stream, Tensor output, Tensor slots, Tensor checked, Tensor armed,"
            " Tensor(a!) rows, Tensor(b!) outputs, Tensor(c!) fired) -> ()"
        )
        library._register_fake("tap_static", _tap_fake)  # noqa: SLF001 - the public decorator needs the global namespace
        _library = library
    library.impl("tap_static", _tap, dispatch_key=key)
    _registered.add(key)


def write(module: nn.Module, stream: torch.Tensor, output: torch.Tensor, tap: int) -> None:  # noqa: ARG001 - the module has what is the tap's
    """Hands a tap's stream and what its norm made of it to the operator; called in the forward."""
    # Any: registered buffers.
    own: Any = module
    buffers = (
        own.introspan_slots,
        own.introspan_checked,
        own.introspan_armed,
        own.introspan_rows,
        own.introspan_outputs,
        own.introspan_fired,
    )
    # Dispatching to an operator takes longer than calling what it does: only a compiler needs it.
    if torch.compiler.is_compiling():
        torch.ops.introspan.tap_static(stream, output, *buffers)
    else:
        _tap(stream, output, *buffers)


class StaticStreams(StaticRows):
    """The rows of taps of streams, and of what norms make of the first of them. A `taps.StreamRows`.

    shape: rows that are kept of each tap, of what checks it, and their width.
    """

    def __init__(
        self,
        taps: int,
        always: int,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        health: Health,
    ) -> None:
        places, checked_places, width = shape
        # Of an odd width in eights, so that each tap's begin where they have to: see `apart`.
        more = -places % 8 if places * width * dtype.itemsize % 16 else 0
        memory = torch.zeros(taps, places + more, width, dtype=dtype, device=device)
        self._rows = memory[:, :places]
        super().__init__([width] * taps, always, places, checked_places, dtype, device, apart(self._rows))
        register_operator(device)
        _edge.health, _edge.failed = health, False
        self.write = write

    def attach(self, module: nn.Module, tap: int) -> None:
        """Gives the module what the operator works on, so that a compiled graph reaches it.

        Not persistent, so that no checkpoint ever holds it.
        """
        for name, buffer in self.buffers[tap]._asdict().items():
            module.register_buffer(f"introspan_{name}", buffer, persistent=False)

    def select(
        self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool, checked_start: int = 0
    ) -> None:
        """Asks for these token rows of the next forward."""
        _edge.failed = False
        super().select(
            index, start, with_output=with_output, everywhere=everywhere, checked_start=checked_start
        )

    @property
    def failed(self) -> bool:
        """Whether a tap has raised since `select`, where Python ran."""
        return _edge.failed

    def kept(self, taps: int, count: int) -> torch.Tensor:
        """The first rows of the first taps, [count, taps, width] in the model's dtype, where they are."""
        return self._rows[:taps, :count].transpose(0, 1)

    def rows(self, taps: int, count: int) -> torch.Tensor:
        """The first rows of the first taps, float32 [count, taps, width]."""
        return self.kept(taps, count).float()

    def of(self, tap: int, start: int, stop: int) -> torch.Tensor:
        """Some of one tap's rows, [stop − start, width]."""
        return self.buffers[tap].rows[start:stop]

    def outputs_of(self, tap: int, count: int) -> torch.Tensor:
        """What the norm made of the tap's first rows, [count, width]."""
        return self.buffers[tap].outputs[:count]
