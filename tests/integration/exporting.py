"""The port of a collector in, an exporter that is in a hurry and observations to offer it out."""

import random
from contextlib import contextmanager
from functools import partial

import numpy as np

from introspan.config import load
from introspan.export import Exporter
from introspan.export.backoff import Backoff
from introspan.observation import CaptureStatus, Observation, Resource
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic
from tests.patience import eventually

PROMPT = Schema(Kind.PROMPT, tuple(Column("residual.log_rms", Statistic.LAST, layer) for layer in range(50)))
DECODED = Schema(
    Kind.DECODED, tuple(Column("residual.log_rms", Statistic.MEAN, layer) for layer in range(60))
)
RESOURCE = Resource("chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 1, "0.1.0")
LOADED_MACHINE_SECONDS = 0.25  # by which a busy machine may wake a thread later than asked

until = partial(eventually, within_seconds=5.0, poll_seconds=0.01)


def observation(request: int, segment: int, *, schema: Schema | None = None) -> Observation:
    schema = schema or (DECODED if segment else PROMPT)
    return Observation(
        schema,
        f"cmpl-{request}",
        bytes(range(16)),
        bytes(range(8)),
        2**64 - 1 - request,
        "lora" if request % 2 else "",
        segment,
        10 * segment,
        10,
        9,
        10,
        0,
        1_800_000_000_000_000_000 + segment,
        0.5,
        np.full(len(schema.columns), request + segment / 1000, np.float32),
    )


def offer(exporter: Exporter, count: int, *, first: int = 0) -> None:
    for i in range(first, first + count):
        exporter.offer(observation(i, 0))


@contextmanager
def exporting(port: int, *, status=CaptureStatus, told=None, environ=None, **kwargs):
    """An exporter, closed at the end; told gets the directives that it was given."""
    settings = load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{port}", **(environ or {})})
    told = [] if told is None else told
    kwargs.setdefault("rng", random.Random(0))
    kwargs.setdefault("tick_seconds", 0.05)
    kwargs.setdefault("backoff", Backoff(first_seconds=0.05, longest_seconds=0.2))
    exporter = Exporter(settings, RESOURCE, status, lambda *directives: told.append(directives), **kwargs)
    try:
        yield exporter
    finally:
        exporter.close()
