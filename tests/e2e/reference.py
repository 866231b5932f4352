"""A checkpoint and a sequence of tokens in, every signal of every layer and head out: Hugging Face, materialised.

Nothing here comes from the SDK. transformers runs the whole sequence once, teacher-forced, in float32 with eager
attention; hooks reduce each layer's attention weights and stream rows in float64 with the formulas as they are
written in the signal catalogue, so that no more than one layer's weights exist at a time.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters as a request states them."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What each row must measure.

    positions [rows] are those of the input tokens: the last prompt token, then every decoded one that was fed back.
    values maps a signal to [rows], [rows, layers], [rows, layers, heads] or [rows, layers, 32]; NaN = not measured.
    streams: ĥ_ℓ [rows, layers + 1, d], the last one before the final norm. logits: raw [rows, V].
    """

    positions: NDArray[np.int64]
    values: dict[str, Float]
    streams: Float
    logits: Float


class HuggingFace:
    """A checkpoint loaded for reference; anything transformers calls a causal language model."""

    def __init__(self, directory: Path) -> None:
        # Any: transformers leaves its models untyped.
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        body = self._model.get_decoder() if hasattr(self._model, "get_decoder") else self._model.base_model
        self._layers: nn.ModuleList = body.layers
        self._norm: nn.Module = body.norm
        self.layer_count = len(self._layers)

    def measure(
        self,
        token_ids: list[int],
        prompt_tokens: int,
        projection: Float | None = None,
        sampling: Sampling | None = None,
        v: Float | None = None,
    ) -> Reference:
        """Signals of the row of the last prompt token and of every decoded token but the last.

        token_ids: prompt and generated tokens; projection: the map [32, d]; v: uniforms [rows] for `sampler.pit`.
        """
        inputs, positions = token_ids[:-1], np.arange(prompt_tokens - 1, len(token_ids) - 1)
        delivered = np.asarray(token_ids)[positions + 1]
        weights: list[tuple[Float, Float, Float]] = []
        streams: list[Float] = []
        earliest = max(0, int(positions[0]) - 2)
        logits = self._run(inputs, positions, earliest, weights, streams)
        values = dict(zip(_ATTENTION, (np.stack(x, axis=1) for x in zip(*weights, strict=True)), strict=True))
        stream = np.stack(streams, axis=1)
        lead = int(positions[0]) - earliest
        values |= _residual(stream, lead, projection)
        values |= _output(logits, delivered)
        if sampling is not None:
            values["sampler.greedy_mismatch"] = np.array(
                [
                    float(sampling.temperature == 0 and x[y] < x.max())
                    for x, y in zip(logits, delivered, strict=True)
                ]
            )
        if sampling is not None and sampling.temperature > 0 and v is not None:
            values["sampler.pit"] = np.array(
                [pit(x, int(y), sampling, float(u)) for x, y, u in zip(logits, delivered, v, strict=True)]
            )
        return Reference(positions, values, _normalised(stream[lead:]), logits)

    @torch.no_grad()
    def _run(
        self,
        inputs: list[int],
        positions: NDArray[np.int64],
        earliest: int,
        weights: list[tuple[Float, Float, Float]],
        streams: list[Float],
    ) -> Float:
        rows = torch.from_numpy(positions)

        def on_attention(module: nn.Module, _args: Any, output: Any) -> Any:  # Any: hooks are untyped
            weights.append(_attention(output[1][0, :, rows].double().numpy(), positions, _window(module)))
            return (output[0], None)  # frees the weights of this layer

        def on_stream(_module: nn.Module, args: Any, kwargs: Any) -> None:  # Any: hooks are untyped
            h = args[0] if args else kwargs["hidden_states"]
            streams.append(h[0, earliest : len(inputs)].double().numpy())

        hooks = [_attention_of(layer).register_forward_hook(on_attention) for layer in self._layers]
        tapped = [*self._layers, self._norm]
        hooks += [module.register_forward_pre_hook(on_stream, with_kwargs=True) for module in tapped]
        try:
            kept = len(inputs) - int(positions[0])
            output = self._model(torch.tensor([inputs]), use_cache=False, logits_to_keep=kept)
        finally:
            for hook in hooks:
                hook.remove()
        logits: Float = output.logits[0].double().numpy()
        return logits


def repetition(tokens: list[int]) -> int:
    """`output.repetition` of a stream, straight from its definition."""
    best = 0
    for k in range(1, 65):
        run = 0
        while run < len(tokens) - k and tokens[-1 - run] == tokens[-1 - run - k]:
            run += 1
        if run + k >= min(3 * k, 168):
            best = max(best, run + k)
    return best


def pit(logits: Float, token: int, sampling: Sampling, v: float) -> float:
    """`sampler.pit` of one row by sorting it; 1 outside the support."""
    q = _softmax(logits / sampling.temperature)
    q = np.where(q < sampling.min_p * q.max(), 0.0, q)
    if 0 < sampling.top_k < len(q):
        q = np.where(q < np.sort(q)[-sampling.top_k], 0.0, q)
    if sampling.top_p < 1:
        ascending = np.argsort(q, kind="stable")
        gone = np.cumsum(q[ascending] / q.sum()) <= 1 - sampling.top_p
        gone[-1] = False
        q[ascending[gone]] = 0.0
    q /= q.sum()
    if q[token] == 0:
        return 1.0
    return float(q[q > q[token]].sum() + v * q[q == q[token]].sum())


_ATTENTION = ("attention.entropy", "attention.sink_mass", "attention.recent_mass")


def _attention_of(layer: nn.Module) -> nn.Module:
    """A decoder layer's self-attention, whatever the family calls it."""
    named = dict(layer.named_children())
    return next(named[name] for name in ("self_attn", "attention", "attn") if name in named)


def _window(attention: nn.Module) -> int | None:
    window = getattr(attention, "sliding_window", None)
    return int(window) if window is not None else None


def _attention(p: Float, positions: NDArray[np.int64], window: int | None) -> tuple[Float, Float, Float]:
    """Entropy, sink and recent mass, each [rows, heads], of weights p: [heads, rows, keys]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p), 0.0)
    keys = np.arange(p.shape[2])
    recent = keys[None, :] > positions[:, None] - 64
    sink = p[:, :, 0].T.copy()
    if window is not None:
        sink[positions >= window] = np.nan
    return -terms.sum(axis=2).T, sink, (p * recent).sum(axis=2).T


def _normalised(h: Float) -> Float:
    return h / np.sqrt((h**2).mean(axis=-1, keepdims=True))


def _residual(h: Float, lead: int, projection: Float | None) -> dict[str, Float]:
    """Residual signals of streams h: [lead + rows, layers + 1, d], the first `lead` only for differences."""
    unit = _normalised(h)
    at, after = h[lead:, :-1], h[lead:, 1:]
    rms = np.sqrt((at**2).mean(axis=-1))
    size = np.linalg.norm(at, axis=-1)
    cosine = (at * after).sum(axis=-1) / (size * np.linalg.norm(after, axis=-1))
    values = {
        "residual.log_rms": np.log(rms),
        "residual.log_peak": np.log(np.abs(at).max(axis=-1) / rms),
        "residual.turn": np.log10(1 - cosine),
        "residual.update_ratio": np.linalg.norm(after - at, axis=-1) / size,
        "residual.nonfinite": (~np.isfinite(at)).sum(axis=-1).astype(np.float64),
    }
    unit = unit[:, :-1]
    steps = np.full_like(unit, np.nan)
    steps[1:] = unit[1:] - unit[:-1]
    length = np.linalg.norm(steps, axis=-1)
    before = np.full_like(steps, np.nan)
    before[1:] = steps[:-1]
    with np.errstate(
        invalid="ignore"
    ):  # the same token again is 0/0 at the layer of embeddings, which is not compared
        cosine = (steps * before).sum(axis=-1) / (length * np.linalg.norm(before, axis=-1))
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    values["residual.velocity"] = (length / math.sqrt(h.shape[-1]))[lead:]
    values["residual.curvature"] = angle[lead:]
    if projection is not None:
        values["residual.projection"] = np.einsum("cd,rld->rlc", projection, unit[lead:])
    return values


def _output(logits: Float, delivered: NDArray[np.int64]) -> dict[str, Float]:
    p = _softmax(logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p), 0.0)
    two = np.sort(p, axis=-1)[:, -2:]
    row = np.arange(len(p))
    return {
        "output.entropy": -terms.sum(axis=-1),
        "output.margin": two[:, 1] - two[:, 0],
        "output.logprob": np.log(p[row, delivered]),
        "output.nonfinite": (np.isnan(logits) | np.isposinf(logits)).sum(axis=-1).astype(np.float64),
    }


def _softmax(x: Float) -> Float:
    e: Float = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
