"""Residual streams of a running forward in, the rows asked for out: the form for models that run on the host.

Python looks at each tap what is asked for, and copies by an index and to a slice that are new in each step. On a CPU
nothing is cheaper. A graph could not record it: `static_streams.py` has the form for that.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from introspan.capture.health import Health


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
            into = selection.outputs_into[tap]
            torch.index_select(output, 0, index[: len(into)], out=into)
        selection.fired[tap] += 1
    except Exception as error:  # noqa: BLE001 - the edge of a probe inside the host's forward
        selection.index = None
        selection.failed = True
        health.error("residual", error)
    health.capture_ns += time.perf_counter_ns() - started_ns


def _copy_rows_fake(*_: object) -> None:
    """Shapes are unchanged: what the compiler needs to know of the operator."""


def register_operator() -> None:
    """Makes `torch.ops.introspan.tap` known; calling it again does nothing."""
    global _library  # noqa: PLW0603 - an operator lives as long as its library, that is, as the process
    if _library is not None:
        return
    # Any: torch.library is not typed.
    library: Any = torch.library.Library("introspan", "FRAGMENT")  # type: ignore[no-untyped-call]  # the same
    library.define("tap(Tensor stream, Tensor output, Tensor(a!) rows, Tensor(b!) outputs, int tap) -> ()")
    library.impl("tap", _copy_rows, dispatch_key="CPU")
    library._register_fake("tap", _copy_rows_fake)  # noqa: SLF001 - the public decorator needs the global namespace
    _library = library


class HostStreams:
    """The rows of taps of streams, and of what norms make of the first of them. A `taps.StreamRows`.

    The first `always` taps copy in every step with rows. shape: rows that are kept of each tap, of what checks it, and
    their width.
    """

    def __init__(
        self, taps: int, always: int, shape: tuple[int, int, int], dtype: torch.dtype, health: Health
    ) -> None:
        register_operator()
        places, checked_places, width = shape
        self._always = always
        self._health = health
        self._rows = torch.zeros(taps, places, width, dtype=dtype)
        self._outputs = torch.zeros(taps, checked_places, width, dtype=dtype)
        self.write = write

    def attach(self, module: nn.Module, tap: int) -> None:  # noqa: ARG002 - a place's own buffers are none here
        """Gives the module what a compiled graph is told that the operator writes to.

        Views of one tensor would look to it as if each tap wrote to all. Not persistent, so no checkpoint holds them.
        """
        for name in ("introspan_rows", "introspan_outputs"):
            module.register_buffer(name, torch.zeros(1), persistent=False)

    def select(self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool) -> None:
        """Asks for these token rows of the next forward."""
        count = index.numel()
        total = len(self._rows)
        taps = total if everywhere else self._always
        _selection.into = self._rows[:taps, start : start + count].unbind()
        _selection.outputs_into = self._outputs[:, :count].unbind() if with_output else ()
        _selection.fired = [0] * total
        _selection.failed = False
        _selection.health = self._health
        _selection.index = index

    def deselect(self) -> None:
        """Asks for nothing."""
        _selection.index = None

    def silent(self) -> list[int]:
        """Taps that did not fire exactly once since `select`."""
        return [tap for tap, fired in enumerate(_selection.fired) if fired != 1]

    @property
    def failed(self) -> bool:
        """Whether a tap has raised since `select`."""
        return _selection.failed

    def complete(self) -> bool:
        """Whether every tap that was asked fired exactly once since `select`."""
        taps = len(_selection.into)
        return _selection.fired[:taps] == [1] * taps

    def was_silent(self) -> bool:
        """`complete` has said it already."""
        return False

    def silent_steps(self) -> None:
        """`complete` has said it already."""

    def kept(self, taps: int, count: int) -> torch.Tensor:
        """The first rows of the first taps, [count, taps, width] in the model's dtype."""
        return self._rows[:taps, :count].transpose(0, 1)

    def rows(self, taps: int, count: int) -> torch.Tensor:
        """The first rows of the first taps, float32 [count, taps, width]."""
        return self._rows[:taps, :count].transpose(0, 1).float()

    def of(self, tap: int, start: int, stop: int) -> torch.Tensor:
        """Some of one tap's rows, [stop − start, width]."""
        return self._rows[tap, start:stop]

    def outputs_of(self, tap: int, count: int) -> torch.Tensor:
        """What the norm made of the tap's first rows, [count, width]."""
        return self._outputs[tap, :count]


def write(module: nn.Module, stream: torch.Tensor, output: torch.Tensor, tap: int) -> None:
    """Hands a tap's stream and what its norm made of it to the operator; called in the forward."""
    # Dispatching to an operator takes longer than what it does, and so does looking buffers up: only a compiler needs
    # either.
    if not torch.compiler.is_compiling():
        _copy_rows(stream, output, stream, output, tap)
        return
    # Any: registered buffers.
    rows: Any = module.introspan_rows
    outputs: Any = module.introspan_outputs
    torch.ops.introspan.tap(stream, output, rows, outputs, tap)
