"""A worker of vLLM in, the memory that its process holds out; called in the worker by vLLM's own RPC."""

from pathlib import Path
from typing import Any

import torch

_PAGE_BYTES = 4096


# Any: vLLM's worker.
def resident(worker: Any) -> int:  # noqa: ARG001 - what such a call is given
    """Bytes that torch holds on the GPU; of the process where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_reserved())
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * _PAGE_BYTES
