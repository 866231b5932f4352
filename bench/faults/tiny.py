"""The families of TinyChange (2512.03816), as far as weights alone make them, and changes that are none."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bench.faults.weights import Change, Weights, matrix

NOISE_EXPONENTS = tuple(range(11, 27))
PRUNED_SHARES = tuple(float(share) for share in np.logspace(-6, -1, 11))
_INT8 = 127.0

CONTROL = "control: healthy"
"""The family of changes that change nothing."""


def noise(exponent: int, seed: int) -> Change:
    """Gaussian noise of standard deviation 2^−exponent on every matrix."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        generator = torch.Generator().manual_seed(seed * 1000 + exponent)
        for name, weights in healthy.items():
            yield name, weights + torch.randn(weights.shape, generator=generator) * 2.0**-exponent

    return Change("noise", f"2^-{exponent}", None, edit)


def pruned_smallest(share: float) -> Change:
    """The smallest weights of every matrix are zero."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        for name, weights in healthy.items():
            size = weights.abs()
            limit = size.flatten().kthvalue(max(1, round(share * weights.numel()))).values
            yield name, weights.masked_fill(size <= limit, 0.0)

    return Change("pruning, smallest", f"{share:.1e}", None, edit)


def pruned_random(share: float, seed: int) -> Change:
    """Weights drawn from every matrix are zero."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        random = np.random.default_rng([seed, round(share * 1e7)])
        for name, weights in healthy.items():
            drawn = random.integers(0, weights.numel(), max(1, round(share * weights.numel())))
            edited = weights.clone()
            edited.view(-1)[torch.from_numpy(drawn)] = 0.0
            yield name, edited

    return Change("pruning, random", f"{share:.1e}", None, edit)


def int8(layer: int) -> Change:
    """A layer's matrices in 8 bits, with a scale for each row."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        for which in range(7):
            name = matrix(layer, which)
            scale = healthy[name].abs().amax(1, keepdim=True) / _INT8
            yield name, (healthy[name] / scale).round() * scale

    return Change("int8", f"layer {layer}", layer, edit)


def heads_permuted(layer: int, heads: int, groups: int, seed: int) -> Change:
    """The same attention with its groups of heads in another order."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        order = torch.from_numpy(_derangement(groups, seed + layer))
        q, k, v, o = (matrix(layer, which) for which in range(4))
        for name in (q, k, v):
            # Rows of a group follow one another, also where several query heads share keys.
            yield name, torch.unflatten(healthy[name], 0, (groups, -1))[order].flatten(0, 1)
        yield o, torch.unflatten(healthy[o], 1, (groups, -1))[:, order].flatten(1, 2)

    assert heads % groups == 0
    return Change("neutral: heads permuted", f"layer {layer}", layer, edit)


def neurons_permuted(layer: int, seed: int) -> Change:
    """The same MLP with its neurons in another order."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        gate, up, down = (matrix(layer, which) for which in (4, 5, 6))
        order = torch.from_numpy(_derangement(len(healthy[gate]), seed + layer))
        yield gate, healthy[gate][order]
        yield up, healthy[up][order]
        yield down, healthy[down][:, order]

    return Change("neutral: neurons permuted", f"layer {layer}", layer, edit)


def nothing(number: int) -> Change:
    """No change at all: a control, which is asked as changes are."""
    return Change(CONTROL, str(number), None, lambda _: iter(()))


def _derangement(n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """An order that is not the old one."""
    random = np.random.default_rng(seed)
    return np.roll(np.arange(n), int(random.integers(1, n))) if n < 8 else random.permutation(n)
