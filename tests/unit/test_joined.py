"""Whoever looks a request up finds once what several workers measured of it."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.archive.observations import Observations, Question
from introspan_collector.archive.part import Segments
from introspan_wire.signals import Kind
from tests.archives import NOW, consume, opened, some_batches, stored
from tests.workers import spread

WORKERS = {"stages": 2, "ranks": 2, "bound": 8}
DAY = 86_400


def identity(row):
    return {name: value for name, value in row.items() if name != "values"}


def in_order(row):
    return sorted(row["values"], key=str)


@pytest.fixture
def batches():
    return some_batches(3) + some_batches(2, first=3, kind=Kind.PROMPT)


def sent_by_workers(batches):
    """All batches of one worker after those of another, so that parts of a segment lie far apart."""
    return [one for of in zip(*(spread(batch, **WORKERS) for batch in batches), strict=True) for one in of]


@pytest.mark.parametrize("where", ["archive", "log", "half of it in the log"])
def test_an_observation_has_the_values_of_all_workers(batches, where, tmp_path):
    whole, parts = opened(tmp_path / "whole"), opened(tmp_path / "parts")
    consume(whole, batches)
    whole.flush()
    sent = sent_by_workers(batches)
    archived = {"archive": len(sent), "log": 0, "half of it in the log": len(sent) // 2}[where]
    consume(parts, sent[:archived])
    parts.flush()
    tail = [Segments(batch, table) for batch in sent[archived:] for table in batch.tables]
    expected = {row["request_id"]: row for row in stored(tmp_path / "whole")}
    found = stored(tmp_path / "parts", tail=tail)
    assert len(found) == len(expected) == 15
    for row in found:
        assert identity(row) == identity(expected[row["request_id"]])
        assert in_order(row) == in_order(expected[row["request_id"]])
    name = found[0]["request_id"]
    (one,) = stored(tmp_path / "parts", Question(name), tail)
    assert in_order(one) == in_order(expected[name])
    entropies = stored(tmp_path / "parts", Question(name, signal="output.entropy"), tail)
    assert [len(row["values"]) for row in entropies] == [1]


def test_a_table_and_lines_of_json_have_them_too(batches, tmp_path):
    archive = opened(tmp_path / "archive")
    consume(archive, sent_by_workers(batches))
    archive.flush()
    with Observations(tmp_path / "archive") as found:
        newest = found.newest(Question(), 7)
        found.write_json_lines(Question(), tmp_path / "lines")
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert len(lines) == 15
    by_id = {row["request_id"]: row for row in stored(tmp_path / "archive")}
    assert all(in_order(line) == in_order(by_id[line["request_id"]]) for line in lines)
    assert len(newest) == 7
    for row in newest:
        values = [one["value"] for one in by_id[row["request_id"]]["values"]]
        assert row["measured"] == len(values)
        assert row["mean"] == pytest.approx(np.mean(values))


def test_a_segment_of_which_one_worker_has_fewer_tokens_is_one(tmp_path):
    archive = opened(tmp_path)
    batch = some_batches(1)[0]
    first, *others = spread(batch, **WORKERS)
    (table,) = first.tables
    short = replace(table, token_count=table.token_count - np.uint32(1))
    consume(archive, [replace(first, tables=(short,)), *others])
    found = archive.newest("model", None, None, None, 100)
    assert [one.table.token_count.tolist() for one in found] == [batch.tables[0].token_count.tolist()]
    archive.flush()
    counts = {row["request_id"]: row["token_count"] for row in stored(tmp_path)}
    assert counts == dict(zip(batch.tables[0].request_id, batch.tables[0].token_count.tolist(), strict=True))


def test_a_segment_of_an_id_that_is_used_again_stays_apart(tmp_path):
    archive = opened(tmp_path)
    batch = some_batches(1)[0]
    (table,) = batch.tables
    again = replace(batch, tables=(replace(table, values=table.values + np.float32(1)),))
    first, second = (spread(one, **WORKERS) for one in (batch, again))
    consume(archive, [one for pair in zip(first, second, strict=True) for one in pair])
    archive.flush()
    found = stored(tmp_path, Question(table.request_id[0]))
    assert len(found) == 2
    for row, of in zip(found, (batch, again), strict=True):
        got = sorted(one["value"] for one in row["values"])
        assert got == pytest.approx(sorted(of.tables[0].values[0].tolist()))


@pytest.mark.parametrize("flushed", [True, False])
def test_looked_up_by_id_or_as_the_newest_each_segment_is_one_row(batches, flushed, tmp_path):
    archive = opened(tmp_path)
    consume(archive, sent_by_workers(batches))
    if flushed:
        archive.flush()
    name, columns = batches[0].tables[0].request_id[0], len(batches[0].tables[0].schema.columns)
    (found,) = archive.request(name, NOW / 1e9 - DAY, NOW / 1e9 + DAY)
    assert (len(found.table), len(found.table.schema.columns)) == (1, columns)
    newest = archive.newest("model", None, None, None, 1_000)
    ids = [one.table.request_id[row] for one in newest for row in reversed(range(len(one.table)))]
    assert sorted(ids) == sorted(itertools.chain(*(batch.tables[0].request_id for batch in batches)))
