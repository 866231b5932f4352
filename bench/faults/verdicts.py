"""Requests of a pool and a reference in, how odd each of them is out: by internals, and by outputs alone."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.faults.pool import Pool, Rows
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.reference.alignment import aligned_projection
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import Sample, samples
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

Scores = Mapping[str, NDArray[np.float64]]
_TRIES = 40
TWO_SIDED = "perplexity of the prompt, two-sided"
"""A baseline beside those of the protocol; nothing is chosen among them with it."""


def inside(pool: Pool, rows: Rows, reference: Reference, calibration: Rows) -> Scores:
    """What the product's own pieces measure of each request; calibration: rows that ranks are taken among."""
    everything = np.concatenate([rows, calibration])
    prompt, decoded = _sampled(pool, everything)
    population = reference.populations[Kind.PROMPT]
    _, distance = reference.classes.nearest(aligned_projection(prompt, population.projection_layers))
    placer, extremes = Placer(reference), Extremes(reference)
    largest_prompt, _ = extremes.worst(prompt, placer.place(prompt))
    largest_decoded, _ = extremes.worst(decoded, placer.place(decoded))
    found = {
        "distance from the class": distance,
        "largest z, prompt": largest_prompt.astype(np.float64),
        "largest z, decoded": largest_decoded.astype(np.float64),
        "distance, decoded": _distance(decoded, reference),
    }
    n = len(rows)
    ranked = [ranks(score[:n], score[n:]) for score in found.values()]
    return {name: score[:n] for name, score in found.items()} | {
        "largest of all, as ranks": np.max(ranked, axis=0)
    }


def outside(pool: Pool, rows: Rows, calibration: Rows) -> Scores:
    """What outputs alone say; too small is as odd as too large, but for perplexity, which is there either way."""
    found = {"perplexity of the prompt": -pool.prompt_logprob}
    for name, table, signal in (
        ("entropy, prompt", pool.prompt, "output.entropy"),
        ("margin, prompt", pool.prompt, "output.margin"),
        ("log-probability, answer", pool.decoded, "output.logprob"),
        ("entropy, answer", pool.decoded, "output.entropy"),
    ):
        column = [column.signal for column in table.schema.columns].index(signal)
        found[name] = table.values[:, column].astype(np.float64)
    one_sided = next(iter(found))
    scores = {name: _two_sided(score, rows, calibration) for name, score in found.items()}
    return scores | {one_sided: found[one_sided][rows], TWO_SIDED: scores[one_sided]}


def _two_sided(score: NDArray[np.float64], rows: Rows, calibration: Rows) -> NDArray[np.float64]:
    """How far from the middle rank; NaN where the score was not measured."""
    apart = np.abs(ranks(score[rows], score[calibration]) - 0.5)
    return np.where(np.isnan(score[rows]), np.nan, apart)


def _distance(sample: Sample, reference: Reference) -> NDArray[np.float64]:
    """How far the projection of decoded rows is from the middle of healthy ones, whitened."""
    population = reference.populations[sample.kind]
    return np.asarray(
        np.linalg.norm(
            population.space.whiten(aligned_projection(sample, population.projection_layers)), axis=1
        )
    )


def ranks(score: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a sample that lies below each score, float64 [n]; beyond all of it the scores go on in their order."""
    ordered = np.sort(among[np.isfinite(among)])
    below = np.searchsorted(ordered, score) / max(len(ordered), 1)
    top = ordered[-1] if len(ordered) else 0.0
    beyond = np.maximum(np.nan_to_num(score) - top, 0.0)
    return np.asarray(below + beyond / (1.0 + beyond))


def _sampled(pool: Pool, rows: Rows) -> tuple[Sample, Sample]:
    """Samples of both rows of each request, under ids of which the product chooses the first segment."""
    ids = [""] * len(rows)
    missing = np.arange(len(rows))
    decoded = _some(pool.decoded, rows)
    for trial in range(_TRIES):
        for i in missing.tolist():
            ids[i] = f"{i}.{trial}"
        chosen = {
            name for _, sample in samples(replace(decoded, request_id=ids)) for name in sample.request_id
        }
        missing = np.array([i for i, name in enumerate(ids) if name not in chosen], np.intp)
        if not len(missing):
            break
    own = [replace(_some(table, rows), request_id=ids) for table in (pool.prompt, pool.decoded)]
    prompt, answer = (next(sample for _, sample in samples(table)) for table in own)
    return prompt, answer


def _some(table: SegmentTable, rows: Rows) -> SegmentTable:
    pool = Pool(table, table, (), np.zeros(0))
    return pool.batch(rows, np.zeros(len(rows), np.uint64), 0.0, 0).tables[0]
