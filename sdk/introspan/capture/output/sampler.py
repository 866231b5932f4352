"""One row of weights, requested sampling parameters and the sampled token in; a uniform number out if all is right.

q is recomputed as vLLM 0.32 defines it: logits / temperature, then min-p, then top-k (ties with the k-th
stay), then top-p on what is left (tokens go, least likely first, while what has gone is ≤ 1 − p).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

GREEDY_TEMPERATURE = 1e-5
"""Below this vLLM takes the arg-max (its `_SAMPLING_EPS`)."""

# Tokens less likely than (1 − p) / _FEW are not looked at for top-p if they are that little together, as they
# nearly always are.
_FEW = 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asked of the sampler; reproducible where no processor but these four applies.

    top_k ≤ 0 or ≥ V, top_p ≥ 1 and min_p ≤ 0 switch a filter off.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    reproducible: bool

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature < GREEDY_TEMPERATURE


# Any: vLLM's SamplingParams.
def requested(params: Any) -> Sampling:
    """What a request asks of the sampler, and whether no other processor takes part."""
    plain = not (
        params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1.0
        or params.logit_bias
        or params.bad_words
        or params.min_tokens
        or params.allowed_token_ids
        or params.structured_outputs is not None
        or params.seed is not None
        or getattr(params, "thinking_token_budget", None) is not None
    )
    return Sampling(
        temperature=float(params.temperature),
        top_k=int(params.top_k),
        top_p=float(params.top_p),
        min_p=float(params.min_p),
        reproducible=plain,
    )


def pit(weights: torch.Tensor, token: int, sampling: Sampling, v: float) -> float:
    """U = Σ_{q_v > q_y} q_v + V · Σ_{q_v = q_y} q_v, uniform on [0, 1] under the right sampler.

    weights: float32 [V] on the host, exp((logit − max) / temperature); v: uniform, by hash of position and
    of the request's id in the engine. A token outside the support of q gives 1. Of tokens tied at the edge of top-p
    only as many count as stay: which ones do is the sampler's to choose.
    """
    array: NDArray[np.float32] = weights.numpy()
    own = array[token]
    total = float(weights.sum())
    least = _least(array, sampling)
    if least == 0.0 and sampling.top_p >= 1.0:
        above = float(torch.threshold(weights, float(own), 0.0).sum())
        return (above + v * float(own) * int(np.count_nonzero(array == own))) / total
    if own < least:
        return 1.0
    if least > 0.0:
        head = np.sort(_at_least(array, least))
        gone, total = 0.0, float(head.sum(dtype=np.float64))
    else:
        head = _nucleus_and_more(array, total, sampling.top_p)
        gone = total - float(head.sum(dtype=np.float64))
    return _cut_pit(head, own, max(0.0, 1.0 - sampling.top_p) * total - gone, v)


def greedy_mismatch(logits: NDArray[np.float32], token: int) -> float:
    """1 where the token that a request of temperature 0 was given is no arg-max of the raw logits [V], else 0."""
    return float(logits[token] < logits.max())


def _least(weights: NDArray[np.float32], sampling: Sampling) -> float:
    """The least weight that min-p and top-k leave; 0 where neither is on."""
    size = weights.size
    least = max(sampling.min_p, 0.0)
    if 0 < sampling.top_k < size:
        kth = size - sampling.top_k
        least = max(least, float(np.partition(weights, kth)[kth]))
    return float(np.float32(least))


def _at_least(weights: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    # By places: picking by a mask takes several times longer.
    return weights[np.flatnonzero(weights >= np.float32(least))]


def _nucleus_and_more(weights: NDArray[np.float32], total: float, top_p: float) -> NDArray[np.float32]:
    """The largest weights in ascending order, all of the nucleus among them."""
    may_go = (1.0 - top_p) * total
    head = _at_least(weights, min(1.0, may_go / _FEW))
    if total - float(head.sum(dtype=np.float64)) > may_go:
        # Fewer than all, each below its share of what may go, are together below that.
        head = _at_least(weights, min(1.0, may_go / weights.size))
    return np.sort(head)


def _cut_pit(ascending: NDArray[np.float32], own: np.float32, may_go: float, v: float) -> float:
    """U where the least likely of these go as long as they are together ≤ may_go."""
    # float64: what is kept may be a small difference of large sums.
    mass = ascending.cumsum(dtype=np.float64)
    cut = min(int(np.searchsorted(mass, may_go, side="right")), mass.size - 1)
    first, end = np.searchsorted(ascending, own), np.searchsorted(ascending, own, side="right")
    tied = int(end) - max(int(first), cut)
    if tied <= 0:
        return 1.0
    below = float(mass[end - 1])
    gone = float(mass[cut - 1]) if cut else 0.0
    return (float(mass[-1]) - below + v * tied * float(own)) / (float(mass[-1]) - gone)
