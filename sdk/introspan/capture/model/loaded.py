"""Parameters of a model in memory in, a digest that changes when they do out."""

import hashlib
import uuid
from collections.abc import Callable

import torch
from torch import nn

LOADED = "loaded-"
"""Prefix of a digest of what is in memory: no digest of files is like it."""

BLOCK_BYTES = 256 * 1024
"""Of each block of so many bytes one sum goes into the digest: words that change places in it go unseen."""

HOST_BUDGET_BYTES = 4 * 1024 * 1024 * 1024
"""Most bytes summed on a CPU, in evenly spaced blocks, to stay within two seconds. A GPU sums all of them sooner."""


def loaded_fingerprint(
    model: nn.Module,
    budget_bytes: int = HOST_BUDGET_BYTES,
    nonce: Callable[[], bytes] = lambda: uuid.uuid4().bytes,
) -> str:
    """LOADED and the lower-case hex SHA-256 of name, type, shape and sums over blocks of every parameter.

    The same weights in the same engine give the same digest. Where a kernel keeps weights to itself the parameter
    is empty, and the digest is one of a kind, made with nonce: what cannot be read must not pass for unchanged.
    """
    digest = hashlib.sha256(b"introspan-loaded-1")
    parameters = sorted(model.named_parameters())
    on_host = sum(p.untyped_storage().nbytes() for _, p in parameters if p.device.type == "cpu")
    every = max(1, -(-on_host // budget_bytes))
    for name, parameter in parameters:
        digest.update(
            f"{name} {parameter.dtype} {list(parameter.shape)} {list(parameter.stride())}\0".encode()
        )
        digest.update(_sums(parameter.detach(), every if parameter.device.type == "cpu" else 1))
    if any(parameter.numel() == 0 for _, parameter in parameters):
        digest.update(nonce())
    return LOADED + digest.hexdigest()


def unread_fingerprint(nonce: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> str:
    """A name for weights that nobody looked at: no other has it."""
    return LOADED + hashlib.sha256(b"introspan-unread-1" + nonce()).hexdigest()


@torch.inference_mode()
def _sums(parameter: torch.Tensor, every: int) -> bytes:
    """Sums of every so manieth block of a parameter's storage, as it lies: no layout makes a copy necessary."""
    storage = torch.empty(0, dtype=torch.uint8, device=parameter.device).set_(parameter.untyped_storage())
    whole = storage.numel() // BLOCK_BYTES * BLOCK_BYTES
    # As whole numbers that wrap around: any one change shows, and a sum is as fast as the memory.
    blocks = storage[:whole].view(torch.int64).view(-1, BLOCK_BYTES // 8)[::every]
    sums = torch.cat([blocks.sum(dim=1), storage[whole:].sum(dtype=torch.int64).view(1)])
    return sums.cpu().numpy().tobytes()
