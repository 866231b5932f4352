"""Raw logits and the delivered tokens in; entropy, margin, log-probability and non-finite values out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Finite, so that a logit of −Inf adds 0 · x = 0 to t; eˣ of it is 0.
_NO_PROBABILITY = -1e30


@dataclass(frozen=True, slots=True, eq=False)
class OutputStatistics:
    """Per row, float32. A NaN or +Inf in a row gives NaN in all but nonfinite; −Inf has probability 0."""

    entropy: Tensor
    margin: Tensor
    logprob: Tensor
    nonfinite: Tensor


def output_statistics(logits: Tensor, token_ids: Tensor) -> OutputStatistics:
    """What the raw logits say of the next token. logits: [rows, V]; token_ids: int64 [rows].

    entropy = ln l − t/l and logprob in nats, margin = p₁ − p₂, with x = logit − max, l = Σ eˣ, t = Σ x eˣ.
    """
    m, likeliest = logits.max(dim=-1, keepdim=True)
    x = logits.to(torch.float32) - m
    at_token = x.gather(1, token_ids.unsqueeze(1)).squeeze(1)
    e = x.exp()
    l = e.sum(dim=-1)  # noqa: E741 - the name it has in the formula
    t = e.mul_(x).sum(dim=-1)
    nonfinite = torch.zeros_like(l)
    # Any value that is not finite makes t NaN, so the common case needs no pass of its own; but looking would
    # wait for a device that is not the CPU.
    if logits.device.type != "cpu" or bool(t.isnan().any()):
        nonfinite = logits.isfinite().logical_not().sum(dim=-1, dtype=torch.float32)
        t = (x.exp() * x.clamp(min=_NO_PROBABILITY)).sum(dim=-1)
    # Out of place the second largest would cost a top-k, which takes longer than all the rest.
    runner_up = x.scatter_(1, likeliest, -math.inf).amax(dim=-1)
    log_l = l.log()
    margin = (1.0 - runner_up.exp()) / l
    return OutputStatistics((log_l - t / l).clamp(min=0.0), margin, at_token - log_l, nonfinite)
