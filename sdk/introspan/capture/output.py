"""Raw logits and the delivered tokens in; entropy, margin, log-probability and non-finite values out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class OutputStatistics:
    """Per row, float32. A NaN or +Inf in a row gives NaN in all but nonfinite; −Inf has probability 0."""

    entropy: Tensor
    margin: Tensor
    logprob: Tensor
    nonfinite: Tensor


def output_statistics(logits: Tensor, token_ids: Tensor) -> OutputStatistics:
    """What the raw logits say of the next token. logits: [rows, V]; token_ids: int64 [rows].

    entropy = ln l − t/l and logprob in nats, margin = p₁ − p₂.
    """
    top = logits.topk(2, dim=-1).values.to(torch.float32)
    x = logits.to(torch.float32) - top[:, :1]
    at_token = x.gather(1, token_ids.unsqueeze(1)).squeeze(1)
    e = x.exp()
    l = e.sum(dim=-1)  # noqa: E741 - the name it has in the formula
    t = e.mul_(x).sum(dim=-1)
    nonfinite = torch.zeros_like(l)
    # Any value that is not finite makes t NaN, so the common case needs no pass of its own; but looking would
    # wait for a device that is not the CPU.
    if logits.device.type != "cpu" or bool(t.isnan().any()):
        nonfinite = (logits.abs() < math.inf).logical_not().sum(dim=-1, dtype=torch.float32)
        t = (x.exp() * x.clamp(min=-1e30)).sum(dim=-1)
    log_l = l.log()
    margin = (1.0 - (top[:, 1] - top[:, 0]).exp()) / l
    return OutputStatistics((log_l - t / l).clamp(min=0.0), margin, at_token - log_l, nonfinite)
