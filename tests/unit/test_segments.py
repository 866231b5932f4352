"""Rows become segments: the right lengths, statistics, identities, and nothing lost at the end."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from introspan.digest.segments import SINGLE, Segments
from introspan.observation import Request, RowColumn, Rows
from introspan_wire.signals import Kind, Statistic

COLUMNS = (
    RowColumn("output.entropy"),  # mean
    RowColumn("residual.log_peak", 3),  # max
    RowColumn("residual.nonfinite", 3),  # sum
    RowColumn("residual.projection", 3, component=0),  # sample
    RowColumn("sampler.pit"),  # sample and mean
)


def _request(key: str = "a", prompt_tokens: int = 10) -> Request:
    return Request(key, f"client {key}", b"t" * 16, b"s" * 8, 7, "lora", prompt_tokens, 4, 0.5, 99)


def _rows(request: Request, position: int, values: list[float], *, closes: bool = False) -> Rows:
    return Rows([request], np.array([position]), np.array([values], np.float32), np.array([closes]))


def _feed(segments: Segments, request: Request, positions, values, **marks):
    return [
        done
        for position, row in zip(positions, values, strict=True)
        for done in segments.add(_rows(request, position, row, **marks), position)
    ]


def test_the_last_prompt_token_is_a_segment_of_its_own_with_its_identity():
    segments, request = Segments(COLUMNS, 2), _request()
    (done,) = segments.add(_rows(request, 9, [1, 2, 3, 4, 0.5]), 77)
    assert done.schema.kind is Kind.PROMPT
    assert {column.statistic for column in done.schema.columns} == {Statistic.LAST}
    assert (done.segment_index, done.token_start, done.token_count, done.measured_count) == (0, 9, 1, 1)
    assert (done.request_id, done.trace_id, done.span_id) == ("client a", b"t" * 16, b"s" * 8)
    assert (done.cluster_key, done.adapter, done.cached_tokens, done.prompt_tokens) == (7, "lora", 4, 10)
    assert (done.sampling_probability, done.time_unix_nano) == (0.5, 77)
    assert done.values.tolist() == [1, 2, 3, 4, 0.5]


def test_decoded_segments_span_64_128_256_then_512_tokens():
    segments, request = Segments(COLUMNS, 2), _request()
    done = _feed(segments, request, range(10, 10 + 2000), [[1, 1, 1, 1, 1]] * 2000)
    done += segments.finish(request, 2009, 0)
    assert [d.token_count for d in done] == [64, 128, 256, 512, 512, 512, 16]
    assert [d.segment_index for d in done] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(d.measured_count for d in done) == 2000
    starts = np.cumsum([10, *[d.token_count for d in done]])[:-1]
    assert [d.token_start for d in done] == starts.tolist()


def test_single_tokens_are_sent_as_they_were_measured_and_at_once():
    segments, request = Segments(COLUMNS, 2, SINGLE), _request()
    positions = [10, 11, 12, 34, 35, 36]
    rows = [[float(position), 1, 0, 2, 0.5] for position in positions]
    done = _feed(segments, request, positions, rows)
    assert [one.token_start for one in done] == positions
    assert {(one.token_count, one.measured_count) for one in done} == {(1, 1)}
    assert [one.segment_index for one in done] == [1, 2, 3, 4, 5, 6]
    assert [one.values[0] for one in done] == positions
    assert segments.finish(request, 40, 0) == []


def test_each_column_is_reduced_by_its_own_statistic_over_measured_rows():
    segments, request = Segments(COLUMNS, 2), _request()
    nan = float("nan")
    _feed(segments, request, [10, 11, 12], [[1, 5, 1, 10, 0.2], [nan, 7, 0, 11, 0.4], [3, 6, 2, 12, nan]])
    (done,) = segments.finish(request, 40, 0)
    values = dict(zip(done.schema.columns, done.values.tolist(), strict=True))
    by_name = {(c.signal, c.statistic): v for c, v in values.items()}
    assert by_name["output.entropy", Statistic.MEAN] == 2
    assert by_name["residual.log_peak", Statistic.MAX] == 7
    assert by_name["residual.nonfinite", Statistic.SUM] == 3
    assert by_name["residual.projection", Statistic.SAMPLE] in {10, 11, 12}
    assert abs(by_name["sampler.pit", Statistic.MEAN] - 0.3) < 1e-6
    assert by_name["sampler.pit", Statistic.FIRST] == np.float32(0.2)
    assert (done.measured_count, done.token_start, done.token_count) == (3, 10, 31)


def test_what_no_row_measured_is_not_a_number():
    segments, request = Segments(COLUMNS, 2), _request()
    _feed(segments, request, [10], [[float("nan")] * 5])
    (done,) = segments.finish(request, 10, 0)
    assert np.isnan(done.values).all()


def test_samples_of_one_segment_come_from_one_row():
    segments, request = Segments(COLUMNS, 2), _request()
    _feed(segments, request, range(10, 60), [[0, 0, 0, i, i] for i in range(50)])
    (done,) = segments.finish(request, 59, 0)
    sampled = [
        v for c, v in zip(done.schema.columns, done.values, strict=True) if c.statistic is Statistic.SAMPLE
    ]
    assert len(set(sampled)) == 1


def test_a_sample_is_there_whenever_any_row_measured_it():
    nan = float("nan")
    for i in range(40):
        segments, request = Segments(COLUMNS, 2), _request(prompt_tokens=10 + i)
        rows = [[1, 1, 1, k, 0.25 if k == 7 else nan] for k in range(12)]
        _feed(segments, request, range(10 + i, 22 + i), rows)
        (done,) = segments.finish(request, 21 + i, 0)
        pit = [v for c, v in zip(done.schema.columns, done.values, strict=True) if c.signal == "sampler.pit"]
        assert pit == [0.25, 0.25]


def test_closing_ends_every_open_segment():
    segments = Segments(COLUMNS, 4)
    for key in "abc":
        _feed(segments, _request(key), [10, 11], [[1] * 5] * 2)
    assert [done.measured_count for done in segments.close(0)] == [2, 2, 2]
    assert segments.close(0) == []


def test_a_closing_row_sends_its_segment_at_once_and_the_next_begins_behind_it():
    segments, request = Segments(COLUMNS, 2), _request()
    _feed(segments, request, [10, 11], [[1] * 5] * 2)
    (done,) = segments.add(_rows(request, 12, [1] * 5, closes=True), 0)
    assert (done.token_start, done.token_count, done.measured_count) == (10, 3, 3)
    _feed(segments, request, [13], [[1] * 5])
    (rest,) = segments.finish(request, 13, 0)
    assert (rest.segment_index, rest.token_start, rest.token_count) == (2, 13, 1)


def test_segments_without_a_measured_row_are_passed_over():
    segments, request = Segments(COLUMNS, 2), _request()
    _feed(segments, request, [10], [[1] * 5])
    done = _feed(segments, request, [10 + 300], [[2] * 5])
    done += segments.finish(request, 320, 0)
    assert [(d.segment_index, d.token_start, d.token_count) for d in done] == [(1, 10, 64), (3, 202, 119)]


def test_finishing_without_rows_gives_nothing_and_frees_the_slot():
    segments = Segments(COLUMNS, 1)
    for i in range(5):
        request = _request(f"r{i}")
        _feed(segments, request, [10], [[1] * 5])
        assert len(segments.finish(request, 10, 0)) == 1
        assert segments.finish(request, 10, 0) == []


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 50),
)
def test_every_measured_row_is_in_exactly_one_segment(gaps, prompt_tokens):
    segments, request = Segments(COLUMNS, 1), _request(prompt_tokens=prompt_tokens)
    positions = (prompt_tokens - 1 + np.cumsum(gaps)).tolist()
    done = _feed(segments, request, positions, [[1] * 5] * len(positions))
    done += segments.finish(request, positions[-1], 0)
    assert sum(d.measured_count for d in done) == len(positions)
    for before, after in itertools.pairwise(done):
        assert before.token_start + before.token_count <= after.token_start
        assert before.segment_index < after.segment_index
    covered = [any(d.token_start <= p < d.token_start + d.token_count for d in done) for p in positions]
    assert all(covered)
