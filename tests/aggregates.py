"""Values in, batches of them and what an aggregator shows of them out."""

from dataclasses import replace

import numpy as np

from bench.fleet import SECOND_NANO, Shape, schema, table

NOW = 1_800_000_000 * SECOND_NANO
SHAPE = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * SECOND_NANO)


def random_table(rows=2, seed=1, **options):
    return table(schema(SHAPE), rows, np.random.default_rng(seed), time_unix_nano=NOW, **options)


def with_column(of, signal, values):
    names = [column.signal for column in of.schema.columns]
    changed = of.values.copy()
    changed[:, names.index(signal)] = values
    return replace(of, values=changed)


def shown(aggregator):
    view = aggregator.view()
    return {key: view.window.at(i) for i, key in enumerate(view.series) if view.window.count[i]}


def histogram(aggregator, signal, model="model"):
    return next(h for h in aggregator.view().histograms if (h.model, h.signal) == (model, signal))
