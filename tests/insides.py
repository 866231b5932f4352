"""Made-up requests of a model with everything that its inside can show: what the pages are drawn from in tests."""

import numpy as np

from introspan.observation import Drawn
from introspan_collector.model import DisabledSignal, Origin, ProducerStatus
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import CATALOGUE, Axis, Kind

LAYERS = (0, 4, 8, 12, 17, 21, 25, 29)
ATTENTION_LAYERS = (0, 10, 20, 29)
HEADS = 9
_PROJECTED = (15, 28)
_CENTRES = 6.0 * np.eye(4, 64)
_SEGMENT_TOKENS = (64, 128, 256)


def _columns(kind):
    for signal in CATALOGUE.values():
        for statistic in signal.statistics(kind):
            if not signal.axes:
                yield Column(signal.name, statistic)
            elif Axis.HEAD in signal.axes:
                for layer in ATTENTION_LAYERS:
                    yield from (Column(signal.name, statistic, layer, head) for head in range(HEADS))
            elif Axis.COMPONENT in signal.axes:
                for layer in _PROJECTED:
                    yield from (Column(signal.name, statistic, layer, component=i) for i in range(32))
            else:
                yield from (Column(signal.name, statistic, layer) for layer in LAYERS)


SCHEMAS = {kind: Schema(kind, tuple(_columns(kind))) for kind in (Kind.PROMPT, Kind.DECODED)}


class Insides:
    """Requests of four classes to one replica. A fault: from a layer on the stream is `shift` deviations larger."""

    def __init__(self, model, replica="r0", seed=0, prefix="chatcmpl"):
        self.origin = Origin(
            "vllm", model, replica, "f00dcafe", "vllm", "0.32.0", "bfloat16", 30, HEADS, "0.1.0"
        )
        self.rng = np.random.default_rng(seed)
        self.drawn = Drawn()
        self.prefix = prefix
        self.requests = self.rows = 0

    def tables(self, count, now, *, shift=0.0, from_layer=17, temperature=1.0, nonfinite=0, segments=1):
        """Prompt rows and `segments` decoded segments of so many requests."""
        kind_of = self.rng.integers(0, 4, count)
        ids = [f"{self.prefix}-{self.origin.replica}-{self.requests + i:06d}" for i in range(count)]
        cluster = self.rng.integers(0, 2**63, count).astype(np.uint64)
        traces = self.rng.integers(0, 256, (count, 16), np.uint8)
        own = self.rng.standard_normal(count)  # what a request has in common with itself
        self.requests += count
        found = []
        for number in range(segments + 1):
            kind = Kind.DECODED if number else Kind.PROMPT
            u = self.rng.uniform(size=count) ** (1 / temperature)
            self.drawn = self.drawn.plus(u.astype(np.float32))
            values = self._values(SCHEMAS[kind], kind_of, own, u, shift, from_layer)
            if number == 1:
                values[0, SCHEMAS[kind].columns.index(_column(kind, "output.nonfinite"))] = nonfinite
            found.append(_table(SCHEMAS[kind], ids, cluster, traces, values.astype(np.float32), now, number))
            self.rows += count
        return tuple(found)

    def status(self, *, disabled=False):
        """What a worker says of itself."""
        off = (DisabledSignal("attention.entropy", "self_check", "layer 3: 0.02 beyond 0.001"),)
        drawn = self.drawn
        return ProducerStatus(
            self.rows, self.rows, 0.5, (), off if disabled else (), 0, 0, 0, 0.25,
            drawn.tokens, drawn.low, drawn.high, drawn.total,
        )  # fmt: skip

    def _values(self, schema, kind_of, own, u, shift, from_layer):
        count = len(kind_of)
        values = self.rng.standard_normal((count, len(schema.columns)))
        for i, column in enumerate(schema.columns):
            depth = max(column.layer, 0) / 30
            noise = 0.6 * values[:, i] + 0.4 * own + 0.3 * kind_of
            if column.signal == "residual.projection":
                centre = _CENTRES[:, 32 * _PROJECTED.index(column.layer) + column.component]
                values[:, i] += centre[kind_of]
            elif column.signal.startswith("residual.") and column.signal != "residual.nonfinite":
                moved = shift if column.layer >= from_layer and column.signal != "residual.curvature" else 0.0
                values[:, i] = _MIDDLES[column.signal](depth) + 0.08 * (noise + moved)
            elif column.signal.startswith("attention."):
                spread = np.sin(7.0 * column.head + column.layer)
                values[:, i] = _MIDDLES[column.signal](depth) * (1 + 0.35 * spread) + 0.08 * noise
            elif column.signal == "sampler.pit":
                values[:, i] = u
            elif column.signal in _MIDDLES:
                values[:, i] = _MIDDLES[column.signal](depth) + 0.08 * noise + 0.03 * shift
            else:
                values[:, i] = 0.0
        return values


_MIDDLES = {
    "residual.log_rms": lambda depth: 0.2 + 1.8 * depth,
    "residual.log_peak": lambda depth: 1.4 + 0.8 * np.sin(3 * depth),
    "residual.turn": lambda depth: -1.2 - 0.6 * np.sin(3 * depth),
    "residual.update_ratio": lambda depth: 0.9 - 0.6 * depth,
    "residual.velocity": lambda depth: 0.9 + 0.2 * depth,
    "residual.curvature": lambda depth: 2.0 + 0.1 * depth,
    "attention.entropy": lambda depth: 2.4 - 1.2 * depth,
    "attention.sink_mass": lambda depth: 0.2 + 0.4 * depth,
    "attention.recent_mass": lambda depth: 0.6 - 0.2 * depth,
    "output.entropy": lambda _: 1.1,
    "output.margin": lambda _: 0.55,
    "output.logprob": lambda _: -0.7,
}


def _column(kind, signal):
    return next(column for column in SCHEMAS[kind].columns if column.signal == signal)


def _table(schema, ids, cluster, traces, values, now, number):
    n = len(ids)

    def same(value, kind=np.uint32):
        return np.full(n, value, kind)

    start = 100 + sum(_SEGMENT_TOKENS[: number - 1]) if number else 99
    tokens = _SEGMENT_TOKENS[min(number, len(_SEGMENT_TOKENS)) - 1] if number else 1
    return SegmentTable(
        schema, ids, traces, traces[:, :8], cluster, [""] * n,
        same(number), same(start), same(tokens), same(max(tokens // 8, 1)), same(100), same(32),
        same(int(now * 1e9), np.uint64), same(0.25, np.float32), values,
    )  # fmt: skip
