"""A Hugging Face model and the steps of a batch in, the stream that enters every layer, and logits, out.

The modules are the model's own; rows of several requests are packed as a server packs them, so that a batch's
composition changes shapes, and with them rounding. It goes layer by layer and not step by step, which computes the
same: what a layer makes of a step depends on no later layer. So a fault in a layer starts from the healthy stream.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

from bench.faults.batch import BLOCK_TOKENS, Step, Text

_HEAD_ROWS = 128

Spoil = Callable[[Tensor, Tensor], None]
"""Changes keys or values [heads, tokens, size] that were taken from the cache in place, given another request's too."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is computed: requests by name, steps, and for each chunk the rows that it has in the packed stream.

    shift: added to all positions; decoded_shift: to those of decoded tokens only; spoil: what is done to a prefix that
    was cached.
    """

    texts: Mapping[str, Text]
    steps: Sequence[Step]
    shift: int = 0
    decoded_shift: int = 0
    spoil: Spoil | None = None

    def rows(self) -> Iterator[list[tuple[str, int, int, slice]]]:
        """For each step its chunks: request, first and last position, rows."""
        row = 0
        for step in self.steps:
            found = []
            for chunk in step:
                found.append((chunk.name, chunk.start, chunk.end, slice(row, row + chunk.end - chunk.start)))
                row += chunk.end - chunk.start
            yield found

    def moved(self, shift: int, decoded_shift: int) -> "Plan":
        """The same steps at other positions."""
        return replace(self, shift=shift, decoded_shift=decoded_shift)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A plan made ready: token ids [rows], cos and sin of their positions, chunks of each step."""

    ids: Tensor
    cos: Tensor
    sin: Tensor
    chunks: list[list[tuple[str, int, int, slice]]]


class Forward:
    """Runs a model of the Llama family, batch by batch."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        config = model.config
        assert config.num_key_value_heads is not None
        assert config.head_dim is not None
        self.layer_count = int(config.num_hidden_layers)
        self._heads = int(config.num_attention_heads)
        self._kv_heads = config.num_key_value_heads
        self._head_size = config.head_dim

    @torch.inference_mode()
    def streams(self, plan: Plan, start: int = 0, entering: Tensor | None = None) -> list[Tensor]:
        """What enters the layers from `start` on, and the final norm: each [rows, d]. entering: what enters `start`."""
        layout = self._layout(plan)
        stream = self.model.model.embed_tokens(layout.ids) if entering is None else entering
        found = [stream]
        for layer in self.model.model.layers[start:]:
            assert isinstance(layer, LlamaDecoderLayer)
            stream = self._layer(layer, stream, plan, layout)
            found.append(stream)
        return found

    @torch.inference_mode()
    def logprobs(self, stream: Tensor) -> Iterator[Tensor]:
        """float32 log-probabilities [≤ 128, vocabulary] of the next token, from rows that enter the final norm."""
        for rows in torch.split(stream, _HEAD_ROWS):
            yield self.model.lm_head(self.model.model.norm(rows)).float().log_softmax(-1)

    def _layout(self, plan: Plan) -> _Layout:
        chunks = list(plan.rows())
        ids, positions = [], []
        for name, start, end, _ in (chunk for step in chunks for chunk in step):
            text = plan.texts[name]
            ids.append(torch.from_numpy(text.ids[start:end]))
            at = torch.arange(start, end) + plan.shift
            positions.append(at + plan.decoded_shift * (torch.arange(start, end) >= text.prompt))
        like = self.model.model.embed_tokens.weight
        cos, sin = self.model.model.rotary_emb(like, torch.cat(positions)[None])
        return _Layout(torch.cat(ids), cos, sin, chunks)

    def _layer(self, layer: LlamaDecoderLayer, stream: Tensor, plan: Plan, layout: _Layout) -> Tensor:
        shape = (self._kv_heads, -1, self._head_size)
        keys = {
            name: stream.new_empty((shape[0], len(text.ids), shape[2])) for name, text in plan.texts.items()
        }
        values = {name: torch.empty_like(key) for name, key in keys.items()}
        made = torch.empty_like(stream)
        read: dict[str, int] = {}
        for step in layout.chunks:
            rows = slice(step[0][3].start, step[-1][3].stop)
            normed = layer.input_layernorm(stream[rows])
            q, k, v = (
                project(normed)[None].unflatten(-1, (-1, self._head_size)).transpose(1, 2)
                for project in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            )
            q, k = apply_rotary_pos_emb(q, k, layout.cos[:, rows], layout.sin[:, rows])
            mixed = torch.empty((len(normed), self._heads, self._head_size), dtype=stream.dtype)
            for name, start, end, at in step:
                inside = slice(at.start - rows.start, at.stop - rows.start)
                text = plan.texts[name]
                if start == text.cached and text.cached:
                    keys[name][:, :start] = keys[text.after][:, :start]
                    values[name][:, :start] = values[text.after][:, :start]
                    if plan.spoil is not None:
                        other = next(
                            one for one in sorted(read) if one != text.after and read[one] >= BLOCK_TOKENS
                        )
                        plan.spoil(keys[name][:, :start], keys[other])
                        plan.spoil(values[name][:, :start], values[other])
                read[name] = end
                keys[name][:, start:end] = k[0, :, inside]
                values[name][:, start:end] = v[0, :, inside]
                mixed[inside] = self._attend(
                    q[:, :, inside], keys[name][:, :end], values[name][:, :end], start
                )
            stream_after = stream[rows] + layer.self_attn.o_proj(mixed.flatten(1))
            made[rows] = stream_after + layer.mlp(layer.post_attention_layernorm(stream_after))
        return made

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        """Causal attention of a chunk's rows [1, heads, n, size] that begin at position `start` → [n, heads, size]."""
        n, end = q.shape[2], k.shape[1]
        mask = None if n == 1 else torch.ones((n, end), dtype=torch.bool).tril(start)
        found = scaled_dot_product_attention(q, k[None], v[None], attn_mask=mask, enable_gqa=True)
        return found[0].transpose(0, 1)
