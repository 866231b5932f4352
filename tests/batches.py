"""Made-up batches of a served model, healthy or not: what the collector reads from its log."""

from dataclasses import replace

import numpy as np

from introspan.observation import Drawn
from introspan_collector.model import Batch, Origin, ProducerStatus
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import Kind, Statistic

LAYERS = (0, 8, 16, 24)
ORIGIN = Origin("vllm", "m", "r0", "f00d", "vllm", "0.32.0", "float32", 30, 9, "0.1.0")
_CENTRES = 6.0 * np.eye(4, 64)


def _columns(statistic, pit):
    return (
        *(Column("residual.log_rms", statistic, layer) for layer in LAYERS),
        *(Column("residual.projection", pit, layer, component=i) for layer in (15, 28) for i in range(32)),
        Column("output.entropy", statistic),
        Column("output.nonfinite", Statistic.SUM if statistic is Statistic.MEAN else statistic),
        Column("sampler.pit", Statistic.FIRST if pit is Statistic.SAMPLE else pit),
    )


PROMPT = Schema(Kind.PROMPT, _columns(Statistic.LAST, Statistic.LAST))
DECODED = Schema(Kind.DECODED, _columns(Statistic.MEAN, Statistic.SAMPLE))


class Traffic:
    """Requests of four classes; each gives a prompt row and a first decoded segment.

    shift moves one feature of decoded and prompt rows; temperature ≠ 1 makes the sampler wrong; outside moves
    the prompt's projection away from all classes. who says what differs from ORIGIN. The status counts the tokens
    drawn, as an SDK's does.
    """

    def __init__(self, seed=0, replica="r0"):
        self.rng = np.random.default_rng(seed)
        self.replica = replica
        self.who = {"replica": replica}
        self.requests = 0
        self.drawn = Drawn()

    def batch(self, count, now, *, shift=0.0, temperature=1.0, outside=0.0, nonfinite=0):
        classes = self.rng.integers(0, 4, count)
        ids = [f"{self.replica}-{self.requests + i}" for i in range(count)]
        self.requests += count
        cluster = self.rng.integers(0, 2**63, count).astype(np.uint64)
        tables = []
        for schema in (PROMPT, DECODED):
            features = self.rng.standard_normal((count, len(LAYERS))) + classes[:, None] / 2
            features[:, 2] += shift
            projection = self.rng.standard_normal((count, 64)) + _CENTRES[classes] + outside
            u = self.rng.uniform(size=count) ** (1 / temperature)
            self.drawn = self.drawn.plus(u.astype(np.float32))
            values = np.column_stack(
                [features, projection, self.rng.gamma(2.0, size=count), np.zeros(count), u]
            )
            values[0, -2] = nonfinite
            tables.append(_table(schema, ids, cluster, values.astype(np.float32), now))
        origin = replace(ORIGIN, **self.who)
        producer = self.replica.encode().ljust(16, b"p")
        return Batch(0, 1, int(now * 1e9), producer, 1, origin, tuple(tables), status(self.drawn))


def status(drawn):
    """What a producer says that has drawn these tokens."""
    return ProducerStatus(1, 1, 0.0, (), (), 0, 0, 0, 1.0, drawn.tokens, drawn.low, drawn.high, drawn.total)


def _table(schema, ids, cluster, values, now):
    n = len(ids)
    decoded = schema.kind is Kind.DECODED

    def same(value, kind=np.uint32):
        return np.full(n, value, kind)

    return SegmentTable(
        schema, ids, np.ones((n, 16), np.uint8), np.zeros((n, 8), np.uint8), cluster, [""] * n,
        same(int(decoded)), same(100 if decoded else 99), same(64 if decoded else 1), same(8 if decoded else 1),
        same(100), same(0), same(int(now * 1e9), np.uint64), same(1.0, np.float32), values,
    )  # fmt: skip
