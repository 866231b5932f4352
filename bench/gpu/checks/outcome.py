"""Checks by name in; how each came out, out: `OK`, or why it failed."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.gpu.scale import Scale

Check = Callable[[], None]
"""Raises where something is not as it should be."""

OK = "ok"

_LONGEST = 300
"""Characters of a reason in the table; the whole of it goes to standard error."""


def outcomes(checks: Mapping[str, Check]) -> dict[str, str]:
    """Runs each check, whatever became of those before it. One fails by raising."""
    return {name: _outcome(check) for name, check in checks.items()}


def _outcome(check: Check) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - told in the table
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]
    return OK


def device_of(scale: Scale) -> torch.device:
    """Where kernels are run: in a rehearsal the interpreter runs them on the CPU."""
    return torch.device("cpu" if scale.is_rehearsal else "cuda")


def prepare(scale: Scale) -> torch.device:
    """The device for kernels; to be called before Triton is imported, which looks once whether it is to interpret."""
    if scale.is_rehearsal:
        os.environ["TRITON_INTERPRET"] = "1"
    return device_of(scale)


def same(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raises AssertionError for numbers that are further apart, or not measured on one side alone."""
    torch.testing.assert_close(
        found.cpu().float(),
        expected.cpu().float(),
        atol=tolerance,
        rtol=1e-5,
        equal_nan=True,
        msg=lambda said: f"{what}: {said}",
    )


@contextmanager
def unwaited(device: torch.device) -> Iterator[None]:
    """What in here would wait for the device raises, and says where."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
