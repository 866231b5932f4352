"""Batches in, an archive of them and what it answers out."""

import numpy as np

from bench.fleet import SECOND_NANO, Shape, batch, schema, table
from introspan_collector.archive.archive import Archive
from introspan_collector.archive.observations import Observations, Question
from introspan_collector.archive.settings import ArchiveSettings
from introspan_wire.signals import Kind

NOW = 1_800_000_000 * SECOND_NANO  # 2027-01-15T08:00:00Z
SHAPE = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)
EVERY = ("output.entropy", None, None, None, None)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * SECOND_NANO)


def some_batches(count, *, first=0, received=NOW, kind=Kind.DECODED, rows=3, traced_share=0.5):
    of = schema(SHAPE, kind)
    return [
        batch(
            table(
                of, rows, np.random.default_rng(number), time_unix_nano=received, traced_share=traced_share
            ),
            number=number,
            received_unix_nano=received,
        )
        for number in range(first, first + count)
    ]


def opened(folder, clock=None, **settings):
    return Archive(folder, ArchiveSettings(**settings), clock or Clock())


def files(folder, kind="observations"):
    return sorted(str(path.relative_to(folder / kind)) for path in (folder / kind).rglob("*.parquet"))


def stored(folder, question=None, tail=()):
    with Observations(folder, lambda _offset: tail) as found:
        return list(found.rows(question or Question()))


def consume(archive, batches):
    for one in batches:
        archive.consume(one)


def counted(archive):
    return sum(track.moments.count.sum() for track in archive.tracks(EVERY, 0, NOW / SECOND_NANO + 86_400))
