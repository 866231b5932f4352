"""Healthy weights and texts of people in, the same weights a few training steps later out: whole, or through LoRA.

A step takes one text, as in TinyChange (2512.03816), where models are tuned on a few samples at a small rate.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import AutoTokenizer, LlamaForCausalLM

from bench.faults import texts
from bench.faults.second_protocol import SECOND
from bench.faults.weights import Change, Weights

_SMALL: Mapping[str, Any] = SECOND["small"]  # Any: JSON
_SEED: int = SECOND["seed"]


def fine_tuned(model: Path, samples: int) -> Change:
    """Every matrix after so many steps of AdamW, a text each."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        weights = {name: value.clone().requires_grad_() for name, value in healthy.items()}
        _train(model, weights.values(), weights, samples, _SMALL["fine_tuning_rate"])
        for name, value in weights.items():
            yield name, value.detach()

    return Change("fine-tuned", f"{samples} samples", None, edit)


def lora(model: Path, samples: int) -> Change:
    """Queries and values with the product of two thin matrices added, trained as long, and merged."""

    def edit(healthy: Weights) -> Iterator[tuple[str, Tensor]]:
        generator = torch.Generator().manual_seed(_SEED)
        rank: int = _SMALL["lora_rank"]
        adapted = [name for name in healthy if name.split(".")[-2] in _SMALL["lora_matrices"]]
        merged = Merged({name: healthy[name] for name in adapted}, rank, generator)
        _train(model, merged.trained, merged, samples, _SMALL["lora_rate"])
        for name in adapted:
            yield name, merged[name].detach()

    return Change("LoRA", f"{samples} samples", None, edit)


class Merged(Mapping[str, Tensor]):
    """Weights with adapters of a rank added, as these are when they are asked for; at first they change nothing."""

    def __init__(self, healthy: Weights, rank: int, generator: torch.Generator) -> None:
        self._healthy = healthy
        self._down: dict[str, Tensor] = {}
        self._up: dict[str, Tensor] = {}
        for name, weights in healthy.items():
            rows, columns = weights.shape
            drawn = torch.rand((rank, columns), generator=generator) * 2 - 1
            self._down[name] = (drawn / math.sqrt(columns)).requires_grad_()
            self._up[name] = torch.zeros((rows, rank), requires_grad=True)

    @property
    def trained(self) -> list[Tensor]:
        """The adapters."""
        return [*self._down.values(), *self._up.values()]

    def __getitem__(self, name: str) -> Tensor:
        return self._healthy[name] + self._up[name] @ self._down[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._up)

    def __len__(self) -> int:
        return len(self._up)


def _train(
    model: Path, trained: Iterable[Tensor], weights: Mapping[str, Tensor], samples: int, rate: float
) -> None:
    network = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    # Any: transformers leaves its tokenizers untyped.
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    chosen = texts.drawn(texts.passages(), samples, _SEED)
    ids = [tokenizer(text.content).input_ids[: _SMALL["tuned_tokens"]] for text in chosen]
    train(network, ids, trained, weights, rate)


def train(
    network: LlamaForCausalLM,
    samples: Iterable[list[int]],
    trained: Iterable[Tensor],
    weights: Mapping[str, Tensor],
    rate: float,
) -> None:
    """Changes the tensors that are trained, a step of AdamW a sample; weights: those of the network made of them."""
    network.requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(list(trained), lr=rate, weight_decay=0.0)
    for sample in samples:
        ids = torch.tensor([sample])
        out = functional_call(network, dict(weights), kwargs={"input_ids": ids, "labels": ids})
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
