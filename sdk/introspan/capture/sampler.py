"""Raw logits, requested sampling parameters and the sampled token in; a uniform number out if all is right.

q is recomputed as vLLM 0.32 defines it: logits / temperature, then min-p, then top-k (ties with the k-th
stay), then top-p on what is left (tokens go, least likely first, while what has gone is ≤ 1 − p).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

GREEDY_TEMPERATURE = 1e-5
"""Below this vLLM takes the arg-max (its `_SAMPLING_EPS`)."""

# Weights are relative to the sampled token's; this keeps e^60 · V inside float32. A token less likely than e^-60
# has U = 1 to every digit anyway.
_WIDEST_GAP = 60.0

# Weights that are sorted first: nearly every top-k and nucleus lies among so many.
_HEAD = 1024

# Largest float32 below 1: "> _BELOW_ONE" is "≥ 1".
_BELOW_ONE = 1.0 - 2.0**-24


@dataclass(frozen=True, slots=True, eq=False)
class SamplingParameters:
    """What each row's request asked for: float32 temperature, top_p, min_p and int64 top_k, each [rows].

    top_k ≤ 0 or ≥ V, top_p ≥ 1 and min_p ≤ 0 switch a filter off. filtered: whether any row has one on.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    filtered: bool


def pit(logits: Tensor, token_ids: Tensor, parameters: SamplingParameters, v: Tensor) -> Tensor:
    """U = Σ_{q_v > q_y} q_v + V · Σ_{q_v = q_y} q_v, float32 [rows], uniform on [0, 1] under the right sampler.

    logits: raw [rows, V]; token_ids: int64 [rows]; v: float32 [rows], uniform, by hash of request and position.
    A token outside the support of q gives 1; a row that is greedy, or has a NaN or +Inf, gives NaN. Of tokens
    tied at the edge of top-p only as many count as stay: which ones do is the sampler's to choose.
    """
    greedy = parameters.temperature < GREEDY_TEMPERATURE
    temperature = torch.where(greedy, 1.0, parameters.temperature).unsqueeze(1)
    x = logits.to(torch.float32) / temperature
    largest = x.amax(dim=-1, keepdim=True)
    at_token = torch.maximum(x.gather(1, token_ids.unsqueeze(1)), largest - _WIDEST_GAP)
    weight = x.sub_(at_token).exp_()
    u = _filtered(weight, parameters, v) if parameters.filtered else _unfiltered(weight, v)
    return torch.where(greedy | largest.isfinite().logical_not().squeeze(1), float("nan"), u)


def greedy_mismatch(logits: Tensor, token_ids: Tensor, temperature: Tensor) -> Tensor:
    """1 where the temperature is 0 and the token is no arg-max of the raw logits, else 0; float32 [rows]."""
    at_token = logits.gather(1, token_ids.unsqueeze(1)).squeeze(1)
    below = at_token < logits.amax(dim=-1)
    return (below & (temperature < GREEDY_TEMPERATURE)).to(torch.float32)


def _unfiltered(weight: Tensor, v: Tensor) -> Tensor:
    """U where every token may be drawn. weight: q_v / q_y [rows, V]."""
    # torch compares slowly on CPUs; threshold is vectorised.
    total = weight.sum(dim=-1)
    from_token = torch.threshold(weight, _BELOW_ONE, 0.0).sum(dim=-1)
    above = torch.threshold(weight, 1.0, 0.0).sum(dim=-1)
    return (above + v * (from_token - above)) / total


def _filtered(weight: Tensor, parameters: SamplingParameters, v: Tensor) -> Tensor:
    """U under min-p, top-k and top-p. weight: q_v / q_y [rows, V], left as it is."""
    total = weight.sum(dim=-1, keepdim=True).to(torch.float64)
    size = weight.shape[1]
    is_open = ((parameters.top_k <= 0) | (parameters.top_k >= size)) & (parameters.top_p >= 1.0)
    is_open &= parameters.min_p <= 0.0
    u = None
    if weight.device.type == "cpu" and size > _HEAD:
        head = np.sort(np.partition(weight.numpy(), size - _HEAD, axis=-1)[:, -_HEAD:], axis=-1)
        u, cut = _cut_pit(torch.from_numpy(head), total, size, parameters, v)
        # A cut inside the head is the cut; otherwise the tail has to be looked at too.
        u = u if bool(((cut > 0) | is_open).all()) else None
    if u is None:
        u, _ = _cut_pit(_sort(weight), total, size, parameters, v)
    return torch.where(is_open, _unfiltered(weight, v), u) if bool(is_open.any()) else u


def _cut_pit(
    ascending: Tensor, total: Tensor, size: int, parameters: SamplingParameters, v: Tensor
) -> tuple[Tensor, Tensor]:
    """U and where in the ascending order of the largest weights the three filters cut, both [rows].

    ascending: [rows, n], the n largest of `size` weights; total: float64 [rows, 1], the sum of all.
    """
    n = ascending.shape[1]
    # float64: what is kept may be a small difference of large sums. mass[i]: of all before the i-th.
    mass = torch.nn.functional.pad(ascending.cumsum(dim=-1, dtype=torch.float64), (1, 0))
    mass += total - mass[:, -1:]
    top_k, top_p = parameters.top_k.unsqueeze(1), parameters.top_p.unsqueeze(1)
    has_top_k = (top_k > 0) & (top_k < size)
    kth = ascending.gather(1, torch.where(has_top_k, n - top_k, 0).clamp(min=0))
    least = torch.maximum(kth * has_top_k, ascending[:, -1:] * parameters.min_p.unsqueeze(1))
    cut = torch.searchsorted(ascending, least)
    gone = mass.gather(1, cut) * (cut > 0)
    allowed = gone + (1.0 - top_p.to(torch.float64)) * (total - gone)
    nucleus = (torch.searchsorted(mass, allowed, right=True) - 1).clamp(min=0, max=n - 1)
    cut = torch.where(top_p < 1.0, torch.maximum(cut, nucleus), cut)
    one = torch.ones_like(least)
    first, end = torch.searchsorted(ascending, one), torch.searchsorted(ascending, one, right=True)
    tied = (end - torch.maximum(first, cut)).clamp(min=0)
    u = (total - mass.gather(1, end) + v.unsqueeze(1) * tied) / (total - mass.gather(1, cut))
    return torch.where(tied > 0, u, 1.0).squeeze(1).to(torch.float32), cut.squeeze(1)


def _sort(weight: Tensor) -> Tensor:
    """Each row in ascending order."""
    if weight.device.type == "cpu":
        # NumPy sorts a vocabulary many times faster than torch on CPUs with AVX-512, and no slower elsewhere.
        return torch.from_numpy(np.sort(weight.numpy(), axis=-1))
    return weight.sort(dim=-1).values
