"""What is asked of the archive and of the tail of the log that is in no part yet."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from bench.fleet import SECOND_NANO
from introspan_collector.archive.observations import Observations, Question
from introspan_collector.archive.part import Segments
from introspan_wire.signals import Kind
from tests.archives import NOW, consume, files, opened, some_batches, stored


def test_every_value_comes_back_as_it_was_sent(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(2) + some_batches(2, first=2, kind=Kind.PROMPT)
    batches[0].tables[0].values[0, :5] = np.nan
    consume(archive, batches)
    archive.flush()
    rows = {row["request_id"]: row for row in stored(tmp_path)}
    assert len(rows) == 12
    for one in batches:
        (of,) = one.tables
        for i, request_id in enumerate(of.request_id):
            row = rows[request_id]
            for name in ("token_start", "token_count", "measured_count", "cached_tokens", "prompt_tokens"):
                assert row[name] == getattr(of, name)[i]
            assert row["trace_id"] == (of.trace_id[i].tobytes().hex() if of.trace_id[i].any() else None)
            assert row["span_id"] == (of.span_id[i].tobytes().hex() if of.span_id[i].any() else None)
            assert (row["kind"], row["model"], row["time"]) == (
                of.schema.kind,
                "model",
                "2027-01-15T08:00:00.000000Z",
            )
            values = [tuple(item.values()) for item in row["values"]]
            assert values == expected_values(of, i)


def expected_values(of, row):
    none = {-1: None}
    return [
        (c.signal, none.get(c.layer, c.layer), none.get(c.head, c.head), none.get(c.component, c.component),
         c.statistic.value, float(value))
        for c, value in zip(of.schema.columns, of.values[row], strict=True)
        if not np.isnan(value)
    ]  # fmt: skip


def test_questions_select_request_time_and_signal(tmp_path):
    archive = opened(tmp_path)
    early, late = some_batches(1), some_batches(1, first=1, received=NOW + 7_200 * SECOND_NANO)
    consume(archive, early + late)
    archive.flush()
    wanted = early[0].tables[0].request_id[1]
    assert [row["request_id"] for row in stored(tmp_path, Question(request_id=wanted))] == [wanted]
    since = Question(since_unix_nano=NOW + 1)
    assert {row["request_id"] for row in stored(tmp_path, since)} == set(late[0].tables[0].request_id)
    for row in stored(tmp_path, Question(signal="residual.velocity")):
        assert {(value["signal"], value["layer"]) for value in row["values"]} == {
            ("residual.velocity", 0),
            ("residual.velocity", 8),
        }
    assert stored(tmp_path, Question(signal="attention.entropy", request_id="nobody")) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("cmpl-X", ["cmpl-X", "cmpl-X-0", "cmpl-X-12", "0_cmpl-X", "13_cmpl-X-1"]),
        ("cmpl-X-1", ["13_cmpl-X-1"]),
        ("resp_X", ["resp_X_0"]),
        ("a+(b", ["a+(b", "a+(b-0"]),
        ("mpl-X", []),
        ("cmpl-", []),
        (".*", []),
    ],
)
def test_a_request_is_found_by_the_id_its_client_got_in_the_parts_and_in_the_tail(tmp_path, asked, found):
    names = ["cmpl-X", "cmpl-X-0", "cmpl-X-12", "0_cmpl-X", "13_cmpl-X-1", "resp_X_0", "a+(b", "a+(b-0"]
    names += ["cmpl-XY", "cmpl-X-a", "cmpl-X-0-0", "a_cmpl-X", "_cmpl-X", "1cmpl-X", "cmpl-X-"]
    archived, waiting = some_batches(2, rows=len(names))
    archived, waiting = (
        replace(one, tables=(replace(one.tables[0], request_id=names),)) for one in (archived, waiting)
    )
    archive = opened(tmp_path)
    archive.consume(archived)
    archive.flush()
    rows = stored(tmp_path, Question(request_id=asked), [Segments(waiting, waiting.tables[0])])
    assert sorted(row["request_id"] for row in rows) == sorted(found * 2)


def test_the_tail_of_the_log_is_found_beside_the_parts(tmp_path):
    archive = opened(tmp_path / "archive")
    batches = some_batches(4)
    consume(archive, batches[:2])
    archive.flush()
    tail = [Segments(one, one.tables[0]) for one in batches[2:]]
    found = [row["request_id"] for row in stored(tmp_path / "archive", tail=tail)]
    assert found == [name for one in batches for name in sorted(one.tables[0].request_id)]
    assert len(stored(tmp_path / "nothing", tail=tail)) == 6


def test_what_is_archived_while_the_log_is_read_comes_once(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(4)
    consume(archive, batches[:2])
    archive.flush()

    def tail(offset):
        consume(archive, batches[2:])
        archive.flush()
        return [Segments(one, one.tables[0]) for one in batches if one.offset >= offset]

    with Observations(tmp_path, tail) as found:
        names = [row["request_id"] for row in found.rows(Question())]
    assert sorted(names) == sorted(name for one in batches for name in one.tables[0].request_id)


def test_parts_without_any_trace_are_read_together_with_parts_that_have_one(tmp_path):
    archive = opened(tmp_path)
    for number, share in enumerate((0.0, 1.0, 0.0)):
        consume(archive, some_batches(1, first=number, traced_share=share))
        archive.flush()
    assert len(files(tmp_path)) == 3
    assert [row["trace_id"] is None for row in stored(tmp_path)] == [*[True] * 3, *[False] * 3, *[True] * 3]
    assert {type(row["span_id"]) for row in stored(tmp_path)} == {str, type(None)}


def test_json_lines_and_parquet_hold_what_rows_hold(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(2))
    archive.flush()
    with Observations(tmp_path) as found:
        found.write_json_lines(Question(), tmp_path / "out.jsonl")
        found.write_parquet(Question(), tmp_path / "out.parquet")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = stored(tmp_path)
    assert [line["request_id"] for line in lines] == [row["request_id"] for row in rows]
    assert [line["trace_id"] for line in lines] == [row["trace_id"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        expected = [value["value"] for value in row["values"]]
        assert [value["value"] for value in line["values"]] == pytest.approx(expected, rel=1e-6)
    count = "SELECT count(*), count(DISTINCT request_id) FROM read_parquet(?)"
    flat = duckdb.connect().execute(count, [str(tmp_path / "out.parquet")])
    assert flat.fetchone() == (sum(len(row["values"]) for row in rows), 6)
