"""A worker of vLLM in, the memory that its process holds out; called in the worker by vLLM's own RPC."""

from pathlib import Path
from typing import Any

import torch

_PAGE_BYTES = 4096


# Any: vLLM's worker.
def resident(worker: Any) -> dict[str, int]:  # noqa: ARG001 - what such a call is given
    """Bytes on the GPU: of tensors that live, and what torch holds for them; of the process where there is none."""
    if torch.cuda.is_available():
        return {
            "allocated": int(torch.cuda.memory_allocated()),
            "reserved": int(torch.cuda.memory_reserved()),
        }
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return {"allocated": pages * _PAGE_BYTES, "reserved": pages * _PAGE_BYTES}
