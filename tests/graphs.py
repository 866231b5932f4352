"""A forward in; what a CUDA graph would keep of it out: its operations and their memory, to be run without Python."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One operation as it ran."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def reads(self) -> list[torch.Tensor]:
        return _tensors((self.args, self.kwargs))

    @property
    def gives(self) -> list[torch.Tensor]:
        return _tensors(self.result)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Graph(TorchDispatchMode):
    """Records what runs in its `with`. All memory that it saw is kept, so that no address is given out twice."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kernels.append(Kernel(func, args, kwargs or {}, result))
        return result

    @torch.inference_mode()
    def replay(self) -> None:
        """Runs the same operations on the same memory: inputs are read, and results written, where they were."""
        for kernel in self.kernels:
            again = kernel.operator(*kernel.args, **kernel.kwargs)
            for recorded, new in zip(kernel.gives, _tensors(again), strict=True):
                # What is of the memory that was recorded is a view, or was written in place.
                if _memory(recorded) != _memory(new):
                    recorded.copy_(new)

    def addresses(self) -> list[tuple[str, list[int]]]:
        """Of each operation the memory that was there before the recording began, in order."""
        made: set[int] = set()
        found = []
        for kernel in self.kernels:
            outside = [tensor.data_ptr() for tensor in kernel.reads if _memory(tensor) not in made]
            known = {_memory(tensor) for tensor in kernel.reads}
            made.update(_memory(tensor) for tensor in kernel.gives if _memory(tensor) not in known)
            if outside:
                found.append((str(kernel.operator), outside))
        return found

    def names(self) -> list[str]:
        """The operators, in order."""
        return [str(kernel.operator) for kernel in self.kernels]
