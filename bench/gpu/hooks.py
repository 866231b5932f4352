"""A worker of vLLM in, the same with a forward hook on every decoder layer out: how hidden states are often taken.

Every token's state of every layer goes to the host, as the recipes do it. It needs an eager engine: a graph that is
replayed calls no hook.
"""

from typing import Any

import torch
from torch import nn


# Any: vLLM's worker; what modules take and give.
def hook_layers(worker: Any) -> int:
    """How many layers were hooked; what they hand out is copied and forgotten."""
    layers = [
        layer
        for module in worker.get_model().modules()
        if isinstance(module, nn.ModuleList)
        for layer in module
        if hasattr(layer, "self_attn")
    ]
    for layer in layers:
        layer.register_forward_hook(_take)
    return len(layers)


def _take(_: nn.Module, __: Any, output: Any) -> None:
    hidden, residual = output if isinstance(output, tuple) else (output, None)
    stream: torch.Tensor = hidden if residual is None else hidden + residual
    stream.detach().to("cpu")
