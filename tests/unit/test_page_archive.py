"""What pages ask of the archive: one request, the newest ones, days of rollups."""

import time
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, origin
from introspan_collector.archive.archive import Archive
from introspan_collector.view import Stored
from introspan_wire.signals import Kind
from tests.archives import EVERY, NOW, Clock, consume, opened, some_batches
from tests.insides import Insides
from tests.large_archive import model_name, write_day

SECONDS = NOW / SECOND_NANO
AROUND = (SECONDS - 7_200, SECONDS + 7_200)


def ids(found):
    return [id_ for one in found for id_ in one.table.request_id]


def values_of(found, request_id):
    return [
        one.table.values[row]
        for one in found
        for row, id_ in enumerate(one.table.request_id)
        if id_ == request_id
    ]


@pytest.mark.parametrize("flushed", [0, 1, 2], ids=["buffered", "half and half", "in parts"])
def test_a_request_is_found_once_wherever_it_is(tmp_path, flushed):
    archive = opened(tmp_path)
    for number, batch in enumerate(some_batches(2)):
        archive.consume(batch)
        if number < flushed:
            archive.flush()
    for batch in some_batches(2):
        wanted = batch.tables[0].request_id[1]
        (found,) = archive.request(wanted, *AROUND)
        assert (found.model, found.replica, ids([found])) == ("model", "replica-0", [wanted])
        np.testing.assert_array_equal(values_of([found], wanted), batch.tables[0].values[[1]])
        assert found.table.schema == batch.tables[0].schema
        for name in ("trace_id", "span_id", "token_start", "time_unix_nano", "cluster_key"):
            np.testing.assert_array_equal(getattr(found.table, name), getattr(batch.tables[0], name)[[1]])
    assert archive.request("none", *AROUND) == []


def test_a_client_finds_its_request_by_the_id_it_knows_and_no_other(tmp_path):
    archive = opened(tmp_path)
    batch = some_batches(1, rows=4)[0]
    table = replace(batch.tables[0], request_id=["cmpl-a-0", "cmpl-a-1", "1_cmpl-a", "cmpl-ab"])
    archive.consume(replace(batch, tables=(table,)))
    for _ in range(2):  # buffered, then in a part
        assert sorted(ids(archive.request("cmpl-a", *AROUND))) == ["1_cmpl-a", "cmpl-a-0", "cmpl-a-1"]
        assert ids(archive.request("cmpl-a-1", *AROUND)) == ["cmpl-a-1"]
        assert archive.request("cmpl-.*", *AROUND) == []
        archive.flush()


def test_a_request_is_looked_for_only_in_the_hours_that_are_asked_for_and_over_their_border(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock)
    border = NOW // (3600 * SECOND_NANO) * 3600
    for number, seconds in enumerate((border - 5, border + 5)):
        batch = some_batches(1, first=number, received=seconds * SECOND_NANO)[0]
        archive.consume(replace(batch, tables=(replace(batch.tables[0], request_id=["a", "b", "c"]),)))
        archive.flush()
    assert ids(archive.request("a", border + 1, border + 60)) == ["a"]
    assert ids(archive.request("a", border - 60, border + 60)) == ["a", "a"]
    assert ids(archive.request("a", border - 7_200, border - 3_700)) == []


def test_the_newest_segments_come_first_and_not_more_than_are_asked_for(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(4, rows=3)
    consume(archive, batches[:2])
    archive.flush()
    consume(archive, batches[2:])
    found = archive.newest("model", None, None, None, 7)
    assert sum(len(one.table) for one in found) == 7
    assert ids(found[:1]) == list(batches[3].tables[0].request_id)
    assert set(ids(found)) < {id_ for batch in batches[1:] for id_ in batch.tables[0].request_id}
    assert archive.newest("model", "another", None, None, 7) == []
    assert archive.newest("another", None, None, None, 7) == []
    assert archive.newest("model", None, "adapter", None, 7) == []
    assert archive.newest("model", None, "", Kind.PROMPT, 7) == []
    assert len(archive.newest("model", "replica-0", "", Kind.DECODED, 1)) == 1


def test_segments_of_several_schemas_come_back_with_their_own(tmp_path):
    archive, insides = Archive(tmp_path), Insides("m")
    batch = some_batches(1)[0]
    tables = insides.tables(2, time.time())
    archive.consume(replace(batch, origin=insides.origin, tables=tables, received_unix_nano=time.time_ns()))
    archive.flush()
    found = archive.request(tables[0].request_id[0], time.time() - 60, time.time() + 60)
    assert {one.table.schema for one in found} == {of.schema for of in tables}
    assert all(isinstance(one, Stored) for one in found)


def test_steps_of_several_minutes_have_what_their_minutes_have(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock)
    for minute in range(6):
        consume(archive, some_batches(1, first=minute, received=NOW + minute * 60 * SECOND_NANO))
    archive.flush()
    (minutes,) = archive.tracks(EVERY, SECONDS - 60, SECONDS + 600)
    (steps,) = archive.tracks(EVERY, SECONDS - 60, SECONDS + 600, 180)
    assert (len(minutes.starts), len(steps.starts)) == (6, 2)
    group = (minutes.starts // 180 - minutes.starts[0] // 180).astype(int)
    expected = minutes.moments.grouped(group, 2)
    np.testing.assert_allclose(steps.moments.mean, expected.mean)
    np.testing.assert_allclose(steps.moments.m2, expected.m2)
    np.testing.assert_array_equal(steps.moments.count, expected.count)


def test_an_hour_that_is_over_is_sorted_so_that_a_question_about_one_model_reads_little(tmp_path):
    import duckdb

    clock = Clock()
    archive = opened(tmp_path, clock, flush_seconds=1.0)
    for number, batch in enumerate(some_batches(6)):
        archive.consume(replace(batch, origin=origin(f"model-{number % 3}")))
        clock.forward(2)
        archive.flush_due()
    clock.forward(7_200)
    later = some_batches(1, first=6, received=clock.now)[0]
    archive.consume(later)
    archive.flush()
    joined = min((tmp_path / "rollups").rglob("*.parquet"))
    rows = duckdb.sql(f"SELECT model, signal, layer FROM read_parquet('{joined}')").fetchall()
    assert len({row[0] for row in rows}) == 3
    assert rows == sorted(rows)


def test_the_archive_keeps_the_day_that_tests_of_the_pages_are_given(tmp_path):
    write_day(tmp_path, time.time_ns(), ("output.entropy",))
    archive = Archive(tmp_path)
    wanted = ("output.entropy", model_name(3), None, None, None)
    (track,) = archive.tracks(wanted, time.time() - 86_400, time.time())
    assert len(track.starts) > 23 * 60 - 2
