"""A small decoder that is tapped, recorded as a CUDA graph and replayed, in; whether its rows are the right ones, out.

In a rehearsal there is no graph: the forward is run again where it would be replayed.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu.checks.outcome import device_of, outcomes, same, unwaited
from bench.gpu.scale import Scale
from introspan.capture.health import Health
from introspan.capture.kernels.choice import register_on
from introspan.capture.model.anatomy import AttentionPoint, Form, StreamPoint
from introspan.capture.taps.attention import tap_attention
from introspan.capture.taps.streams import Taps

_LAYERS, _HEADS, _HEAD_SIZE = 3, 4, 64
_WIDTH = _HEADS * _HEAD_SIZE
_TOKENS, _ROWS_MAX = 32, 12


class _Norm(nn.Module):
    """As vLLM's: of x alone, or of x and a residual, whose sum it hands on."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        stream = x if residual is None else x + residual
        normed = nn.functional.rms_norm(stream, (_WIDTH,))
        return normed if residual is None else (normed, stream)


def _attend(*args: Any, output: Tensor) -> Tensor:
    return output.copy_(torch.tanh(args[1]))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.impl = SimpleNamespace(num_heads=_HEADS, head_size=_HEAD_SIZE, forward=_attend)

    def forward(self, x: Tensor) -> Tensor:
        query = x.view(-1, _HEADS, _HEAD_SIZE)
        output = torch.empty_like(query)
        self.impl.forward(self, query, None, None, None, None, output=output)
        return output.view(-1, _WIDTH)


class _Decoder:
    """Tapped at every norm and attention, and run over one memory; streams: what the last forward had, in order."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.health = Health()
        self.norms = [_Norm() for _ in range(_LAYERS + 1)]
        self.attention = [_Attention() for _ in range(_LAYERS)]
        self.x = torch.zeros(_TOKENS, _WIDTH, dtype=dtype, device=device)
        register_on(device)
        points = [StreamPoint(layer, norm, Form.NORM) for layer, norm in enumerate(self.norms)]
        self.taps = Taps(points, _ROWS_MAX, _WIDTH, dtype, device, self.health, static=True)
        self.queries = tap_attention(
            [AttentionPoint(layer, module) for layer, module in enumerate(self.attention)],
            _ROWS_MAX,
            dtype,
            device,
            self.health,
            static=True,
        )

    def forward(self) -> None:
        residual, hidden = self.x, self.norms[0](self.x)
        for attention, norm in zip(self.attention, self.norms[1:], strict=True):
            hidden, residual = norm(attention(hidden), residual)

    def expected(self) -> tuple[list[Tensor], list[Tensor]]:
        """Streams and queries of what is in the memory now, past the taps."""
        streams, queries = [self.x], [nn.functional.rms_norm(self.x, (_WIDTH,))]
        for _ in range(_LAYERS):
            streams.append(torch.tanh(queries[-1]) + streams[-1])
            queries.append(nn.functional.rms_norm(streams[-1], (_WIDTH,)))
        return streams, queries[:-1]


def run(scale: Scale) -> dict[str, str]:
    """How replayed taps came out, for each dtype that models have."""
    device = device_of(scale)
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return outcomes({f"taps in a graph {name}": _replaying(dtype, device) for name, dtype in dtypes.items()})


def _replaying(dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    @torch.inference_mode()
    def check() -> None:
        decoder = _Decoder(dtype, device)
        replay = _recorded(decoder.forward, device)
        draw, start = torch.Generator().manual_seed(1), 0
        wanted: list[tuple[list[Tensor], list[Tensor]]] = []
        for rows in ([3, 31], [0], [5, 7, 9]):
            decoder.x.copy_(torch.randn(_TOKENS, _WIDTH, generator=draw))
            index = torch.tensor(rows)
            with unwaited(device):
                decoder.taps.select(index, start, with_output=False)
                for tap in decoder.queries:
                    tap.select(index, start, with_output=False)
                replay()
                decoder.taps.complete()
                for tap in decoder.queries:
                    tap.complete()
                    tap.deselect()
                decoder.taps.deselect()
                replay()  # a step that nobody asks about changes nothing
            streams, queries = decoder.expected()
            wanted.append(([each[rows] for each in streams], [each[rows] for each in queries]))
            start += len(rows)
        _judge(decoder, wanted, start)

    return check


def _judge(decoder: _Decoder, wanted: list[tuple[list[Tensor], list[Tensor]]], count: int) -> None:
    if decoder.health.errors:
        raise AssertionError(f"taps raised: {dict(decoder.health.errors)}")
    if decoder.taps.was_silent() or any(tap.was_silent() for tap in decoder.queries):
        raise AssertionError(f"silent taps: streams {decoder.taps.silent()}")
    tolerance = 0.0 if decoder.x.dtype == torch.float32 and decoder.x.device.type == "cpu" else 0.02
    for layer in range(_LAYERS + 1):
        expected = torch.cat([streams[layer] for streams, _ in wanted])
        same(decoder.taps.tapped(layer, count), expected, tolerance, f"stream {layer}")
    for layer, tap in enumerate(decoder.queries):
        expected = torch.cat([queries[layer] for _, queries in wanted])
        same(tap.q[:count].flatten(1), expected, tolerance, f"queries {layer}")


def _recorded(forward: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays the forward on its memory."""
    forward()  # kernels are compiled before anything is recorded, as an engine's warm-up does it
    if device.type != "cuda":
        return forward
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    replay: Callable[[], None] = graph.replay
    return replay
