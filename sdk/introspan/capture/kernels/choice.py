"""A device in; whether the kernels of this folder compute there out. Triton is imported where they do, only."""

from functools import cache
from importlib.util import find_spec

import torch

from introspan.capture.taps.gather import register_gather

_DEVICES = frozenset({"cuda"})


def computes_on(device: torch.device) -> bool:
    """Whether kernels compute what is on this device; elsewhere torch does."""
    return device.type in _DEVICES and _has_triton()


def register_on(device: torch.device) -> None:
    """Makes taps on this device copy by a kernel, where kernels compute; to be called before a model is tapped."""
    if computes_on(device):
        from introspan.capture.kernels.rows import gather  # noqa: PLC0415 - imports Triton

        register_gather(device.type, gather)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
