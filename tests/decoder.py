"""A small decoder with norms and attention calls shaped as vLLM's, tapped or not; and what it computes, said again."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from introspan.capture.model.anatomy import AttentionPoint, Form, StreamPoint

LAYERS, HEADS, HEAD_SIZE = 3, 2, 16
WIDTH = HEADS * HEAD_SIZE


class Norm(nn.Module):
    """Of x alone, or of x and a residual, whose sum it hands on."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(WIDTH, generator=generator), requires_grad=False)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        stream = x if residual is None else x + residual
        normed = stream * torch.rsqrt(stream.square().mean(-1, keepdim=True) + 1e-6) * self.weight
        return normed if residual is None else (normed, stream)


def _attend(*args: Any, output: torch.Tensor) -> torch.Tensor:
    return output.copy_(torch.tanh(args[1]))


class Attention(nn.Module):
    """Queries that know their position, and an output made of them by `impl.forward`."""

    def __init__(self, layer: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / 4, requires_grad=False)
        self.layer_name = f"model.layers.{layer}.self_attn.attn"
        self.impl = SimpleNamespace(num_heads=HEADS, head_size=HEAD_SIZE, forward=_attend)

    def queries(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """[tokens, heads, head size]."""
        return (x @ self.weight).view(-1, HEADS, HEAD_SIZE) * torch.cos(positions).view(-1, 1, 1)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, metadata: Any) -> torch.Tensor:
        query = self.queries(x, positions)
        output = torch.empty_like(query)
        self.impl.forward(self, query, None, None, None, metadata, output=output)
        return output.view(-1, WIDTH)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a forward makes, [points, tokens, width] of streams and norms, [layers, tokens, width] of attention."""

    streams: torch.Tensor
    normed: torch.Tensor
    queries: torch.Tensor
    attended: torch.Tensor


class Decoder(nn.Module):
    """x [tokens, width] and positions [tokens] → [tokens, width]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.norms = nn.ModuleList(Norm(generator) for _ in range(LAYERS + 1))
        self.attention = nn.ModuleList(Attention(layer, generator) for layer in range(LAYERS))

    def stream_points(self, layers: tuple[int, ...] = tuple(range(LAYERS + 1))) -> list[StreamPoint]:
        return [StreamPoint(layer, self.norms[layer], Form.NORM) for layer in layers]

    def attention_points(self) -> list[AttentionPoint]:
        return [AttentionPoint(layer, module) for layer, module in enumerate(self.attention)]

    def forward(self, x: torch.Tensor, positions: torch.Tensor, metadata: Any = None) -> torch.Tensor:
        residual, hidden = x, self.norms[0](x)
        for attention, norm in zip(self.attention, list(self.norms)[1:], strict=True):
            hidden, residual = norm(attention(hidden, positions, metadata), residual)
        return hidden

    def said_again(self, x: torch.Tensor, positions: torch.Tensor) -> Seen:
        """The same past hooks and wrappers."""
        streams, normed, queries, attended = [x], [self.norms[0].forward(x)], [], []
        for attention, norm in zip(self.attention, list(self.norms)[1:], strict=True):
            queries.append(attention.queries(normed[-1], positions).flatten(1))
            attended.append(torch.tanh(queries[-1]))
            hidden, stream = norm.forward(attended[-1], streams[-1])
            streams.append(stream)
            normed.append(hidden)
        return Seen(*(torch.stack(each) for each in (streams, normed, queries, attended)))


def inputs(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x and positions of a step."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, WIDTH, generator=generator), torch.randint(
        0, 500, (tokens,), generator=generator
    ).float()
