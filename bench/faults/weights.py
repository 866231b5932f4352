"""Weights of a healthy model in, weights with one change out: faults of memory, of shards, of scales, and tiny ones."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

Weights = Mapping[str, Tensor]
Edit = Callable[[Weights], Iterator[tuple[str, Tensor]]]

EMBEDDING = "model.embed_tokens.weight"
_MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One change of weights. layer: the only one it is in, None for all and the embedding; edit: float32 → float32."""

    family: str
    name: str
    layer: int | None
    edit: Edit


@contextmanager
def changed(model: LlamaForCausalLM, healthy: Weights, change: Change) -> Iterator[bool]:
    """The model with a change, taken back at the end; yields whether any weight is another in the model's own dtype."""
    parameters = dict(model.named_parameters())
    touched = []
    is_other = False
    try:
        for name, edited in change.edit(healthy):
            touched.append(name)
            # Taken as bytes: −0 is another weight than 0, and a NaN is one.
            made = edited.to(model.dtype)
            is_other |= not torch.equal(made.view(torch.uint8), parameters[name].data.view(torch.uint8))
            parameters[name].data.copy_(made)
        yield is_other
    finally:
        for name in touched:
            parameters[name].data.copy_(healthy[name])


def healthy_weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """float32 copies of the matrices."""
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2
    }


def matrix(layer: int, which: int) -> str:
    """The name of one of a layer's seven matrices."""
    return f"model.layers.{layer}.{_MATRICES[which % len(_MATRICES)]}.weight"


def bit_flip(layer: int, seed: int) -> Change:
    """One bit of one weight's exponent goes from 0 to 1: it grows, two times or up to 2¹²⁸ times."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        random = np.random.default_rng([seed, layer, 3])
        name = matrix(layer, int(random.integers(7)))
        weights = healthy[name].clone()
        place = int(random.integers(weights.numel()))
        bits = weights.view(torch.int32).view(-1)
        word = int(bits[place])
        bits[place] = word | (1 << int(random.choice([bit for bit in range(23, 31) if not word >> bit & 1])))
        yield name, weights

    return Change("exponent bit", f"layer {layer}", layer, edit)


def zeroed_shard(layer: int, seed: int) -> Change:
    """A quarter of a matrix is zero, as where one of four tensor-parallel shards was not loaded."""
    random = np.random.default_rng([seed, layer, 4])
    name, quarter = matrix(layer, int(random.integers(7))), int(random.integers(4))

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        weights = healthy[name].clone()
        # Shards of what is added up are columns, of everything else rows.
        axis = int("o_proj" in name or "down_proj" in name)
        weights.chunk(4, axis)[quarter].zero_()
        yield name, weights

    return Change("zeroed shard", f"layer {layer}", layer, edit)


def mis_scaled(layer: int, seed: int) -> Change:
    """One matrix is twice or half as large, as where a scale belongs to another."""
    random = np.random.default_rng([seed, layer, 5])
    name, factor = matrix(layer, int(random.integers(7))), float(random.choice([0.5, 2.0]))

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        yield name, healthy[name] * factor

    return Change("mis-scaled", f"layer {layer}", layer, edit)
