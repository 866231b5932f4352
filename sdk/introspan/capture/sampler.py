"""Raw logits, requested sampling parameters and the sampled token in; a uniform number out if all is right.

q is recomputed as vLLM 0.32 defines it: logits / temperature, then min-p, then top-k (ties with the k-th
stay), then top-p on what is left (a token stays while the mass above it is < p).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Below this vLLM samples greedily (`_SAMPLING_EPS`).
GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class SamplingParameters:
    """What each row's request asked for: float32 temperature, top_p, min_p and int64 top_k, each [rows].

    top_k ≤ 0 or ≥ V, top_p ≥ 1 and min_p ≤ 0 switch a filter off.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor


def pit(logits: Tensor, token_ids: Tensor, parameters: SamplingParameters, v: Tensor) -> Tensor:
    """U = Σ_{q_v > q_y} q_v + V · Σ_{q_v = q_y} q_v, uniform on [0, 1] under the right sampler.

    logits: raw [rows, V]; token_ids: int64 [rows]; v: float32 [rows], uniform, by hash of request and
    position. A token outside the support of q gives 1, a greedy or non-finite row NaN. Of tokens tied at the edge of
    top-p only as many count as survive: which ones do is the sampler's to choose.
    """
    greedy = parameters.temperature < GREEDY_TEMPERATURE
    temperature = torch.where(greedy, 1.0, parameters.temperature).unsqueeze(1)
    x = logits.to(torch.float32) / temperature
    e = x.sub_(x.amax(dim=-1, keepdim=True)).exp_()
    _drop_unlikely(e, parameters)
    at_token = e.gather(1, token_ids.unsqueeze(1))
    above = torch.where(e > at_token, e, 0.0).sum(dim=-1)
    tied = (e == at_token).sum(dim=-1) * at_token.squeeze(1)
    kept = e.sum(dim=-1)
    if bool((parameters.top_p < 1.0).any()):
        kept, edge, edge_mass = _nucleus(e, parameters.top_p)
        at = at_token.squeeze(1)
        tied = torch.where(at == edge, edge_mass, torch.where(at < edge, 0.0, tied))
        above = torch.where(at < edge, kept, above)
    u = (above + v * tied) / kept
    outside = (at_token.squeeze(1) == 0.0) | (tied == 0.0)
    u = torch.where(outside, 1.0, u).clamp(max=1.0)
    return torch.where(greedy | kept.isnan(), float("nan"), u)


def greedy_mismatch(logits: Tensor, token_ids: Tensor, temperature: Tensor) -> Tensor:
    """1 where the temperature is 0 and the token is no arg-max of the raw logits, else 0; float32 [rows]."""
    at_token = logits.gather(1, token_ids.unsqueeze(1)).squeeze(1)
    below = at_token < logits.amax(dim=-1)
    return (below & (temperature < GREEDY_TEMPERATURE)).to(torch.float32)


def _drop_unlikely(e: Tensor, parameters: SamplingParameters) -> None:
    """Zero in place what min-p and top-k leave out. e: [rows, V] with a maximum of 1."""
    if bool((parameters.min_p > 0.0).any()):
        e.masked_fill_(e < parameters.min_p.unsqueeze(1), 0.0)
    size = e.shape[1]
    filtered = (parameters.top_k > 0) & (parameters.top_k < size)
    if bool(filtered.any()):
        k = torch.where(filtered, parameters.top_k, 1)
        largest = e.topk(int(k.max()), dim=-1).values
        least = torch.where(filtered.unsqueeze(1), largest.gather(1, k.unsqueeze(1) - 1), 0.0)
        e.masked_fill_(e < least, 0.0)


def _nucleus(e: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mass that top-p keeps, the least value it keeps, and the mass it keeps at that value; each [rows]."""
    ordered = e.sort(dim=-1, descending=True).values
    mass = ordered.cumsum(dim=-1)
    kept = (mass - ordered) < top_p.unsqueeze(1) * mass[:, -1:]
    kept |= (top_p >= 1.0).unsqueeze(1)
    kept[:, 0] = True
    count = kept.sum(dim=-1, keepdim=True)
    edge = ordered.gather(1, count - 1)
    at_edge = (kept & (ordered == edge)).sum(dim=-1)
    return mass.gather(1, count - 1).squeeze(1), edge.squeeze(1), at_edge * edge.squeeze(1)
