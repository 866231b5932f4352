"""What is to be launched on a device in; what in it would wait for the device out.

Tensors of the device are torch's `meta` tensors: they have no numbers, so whoever asks for one raises. What is left is
copies of numbers of the host that are not in pinned memory. To be run where kernels are interpreted; none is run here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")


class _Copies(TorchDispatchMode):
    """Names copies between the host and the device that wait."""

    def __init__(self, pinned: set[int]) -> None:
        super().__init__()
        self.found: list[str] = []
        self._pinned = pinned

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        host = [tensor for tensor in given if tensor.device.type == "cpu"]
        gives_device = any(
            leaf.device == DEVICE for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)
        )
        if host and gives_device:
            is_pinned = all(tensor.data_ptr() in self._pinned for tensor in host)
            if not is_pinned or not (kwargs or {}).get("non_blocking"):
                self.found.append(f"{func} from the host")
        return result


class _Made(TorchFunctionMode):
    """Names tensors that are made of the host's numbers on the device, which torch does out of the other's sight."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        makes = func in (torch.tensor, torch.as_tensor) and result.device == DEVICE
        indexes = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and args[0].device == DEVICE
        if makes or (indexes and any(isinstance(leaf, list | np.ndarray) for leaf in _indices(args[1]))):
            self.found.append(f"{func.__name__} of the host's numbers")
        return result


def _indices(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


@contextmanager
def _pins(pinned: set[int]) -> Iterator[None]:
    """Memory that is said to be pinned is known by where it is; there is no device to pin it for."""
    from triton.runtime.interpreter import GridExecutor

    held = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor.clone())
        pinned.add(held[-1].data_ptr())
        return held[-1]

    before = torch.Tensor.pin_memory, GridExecutor.__call__
    torch.Tensor.pin_memory = pin
    GridExecutor.__call__ = lambda *_, **__: None
    try:
        yield
    finally:
        torch.Tensor.pin_memory, GridExecutor.__call__ = before


def waits_of(launch: Callable[[], object]) -> list[str]:
    """What waits while this runs; what asks the device for a number raises."""
    pinned: set[int] = set()
    with _pins(pinned), _Made() as made, _Copies(pinned) as copies:
        launch()
    return made.found + copies.found
