"""A checkpoint and a sequence of tokens in, signals of every layer and head out: transformers, materialised.

Nothing here comes from the SDK. The model runs in the served dtype on the served device; formulas are computed from
what it hands out, in float64 on the host.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Float = NDArray[np.float64]

_RECENT_KEYS = 64


class Reference:
    """One checkpoint of a Llama, loaded by transformers."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # Any: transformers leaves its models untyped.
        loader: Any = AutoModelForCausalLM
        model = loader.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager")
        self._model = model.eval().to(self._device)

    def measure(self, tokens: list[int], prompt_tokens: int) -> dict[str, Float]:
        """Signals of the last prompt token's row and of each decoded token's but the last.

        [rows, layers, heads], [rows, layers] or [rows] by signal; NaN where there is no value.
        """
        first = prompt_tokens - 1
        streams, weights, logits = self._run(tokens[:-1])
        entropy = [_entropy(layer[:, first:]).T for layer in weights]
        sink = [layer[:, first:, 0].T for layer in weights]
        recent = [_recent(layer)[:, first:].T for layer in weights]
        at, after = streams[:-1], streams[1:]
        rms = np.sqrt((at**2).mean(axis=-1))
        unit = at / rms[..., None]
        steps = np.linalg.norm(np.diff(unit, axis=1), axis=-1) / np.sqrt(at.shape[-1])
        velocity = np.concatenate([np.full((len(at), 1), np.nan), steps], axis=1)
        velocity[:, : first + 2] = np.nan  # it is between two tokens that were decoded
        ratio = np.linalg.norm(after - at, axis=-1) / np.linalg.norm(at, axis=-1)
        p = np.exp(logits[first:] - logits[first:].max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        two = np.sort(p, axis=-1)[:, -2:]
        delivered = np.asarray(tokens[first + 1 :])
        return {
            "attention.entropy": np.stack(entropy, axis=1),
            "attention.sink_mass": np.stack(sink, axis=1),
            "attention.recent_mass": np.stack(recent, axis=1),
            "residual.log_rms": np.log(rms[:, first:]).T,
            "residual.update_ratio": ratio[:, first:].T,
            "residual.velocity": velocity[:, first:].T,
            "output.entropy": _entropy(p),
            "output.margin": two[:, 1] - two[:, 0],
            "output.logprob": np.log(p[np.arange(len(p)), delivered]),
        }

    @torch.no_grad()
    def _run(self, tokens: list[int]) -> tuple[Float, list[Float], Float]:
        """Streams [layers + 1, rows, width], weights [heads, rows, keys] by layer, and logits [rows, vocabulary]."""
        before_norm: list[torch.Tensor] = []

        def keep(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            before_norm.append(given[0])

        # The last of transformers' hidden states has passed the final norm; ours enters it.
        hook = self._model.model.norm.register_forward_pre_hook(keep)
        try:
            inputs = torch.tensor([tokens], device=self._device)
            out = self._model(inputs, use_cache=False, output_hidden_states=True, output_attentions=True)
        finally:
            hook.remove()
        streams = [*out.hidden_states[:-1], before_norm[0]]
        return (
            np.stack([_host(each) for each in streams]),
            [_host(each) for each in out.attentions],
            _host(out.logits),
        )


def _recent(weights: Float) -> Float:
    """What each query gives its newest keys, its own included. weights: [heads, rows, keys] → [heads, rows]."""
    behind = np.arange(weights.shape[1])[:, None] - np.arange(weights.shape[2])[None, :]
    found: Float = np.where(behind < _RECENT_KEYS, weights, 0.0).sum(axis=-1)
    return found


def _host(tensor: torch.Tensor) -> Float:
    values: Float = tensor[0].double().cpu().numpy()
    return values


def _entropy(p: Float) -> Float:
    """Nats, along the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p), 0.0)
    entropy: Float = -terms.sum(axis=-1)
    return entropy
