"""Which rows of a step are measured: each position once, bursts of three, nothing of the prompt's inside."""

import numpy as np

from introspan.capture.rows import Table
from introspan.draw import draw
from introspan.observation import Request


def _request(key: str, prompt_tokens: int, hash64: int = 0) -> Request:
    return Request(key, key, bytes(16), bytes(8), 0, "", prompt_tokens, 0, 1.0, hash64)


def _select(table: Table, ids: list[str], start: list[int], scheduled: list[int]):
    return table.select(ids, np.array(start, np.int64), np.array(scheduled, np.int64))


def test_only_the_last_prompt_token_of_chunked_prefill_is_measured():
    table = Table(4, 1)
    table.begin(_request("a", 10))
    assert _select(table, ["a"], [0], [4]) is None
    assert _select(table, ["a"], [4], [4]) is None
    last = _select(table, ["a"], [8], [2])
    assert last.position.tolist() == [9]
    assert last.burst.tolist() == [-1]
    assert last.attention.tolist() == [True]


def test_positions_computed_again_after_preemption_count_once():
    table = Table(4, 1)
    table.begin(_request("a", 3))
    seen = []
    steps = [(0, 3), (3, 1), (4, 1), (0, 5), (5, 1)]  # preempted at position 5: 0 to 4 are computed again
    for start, scheduled in steps:
        selection = _select(table, ["a"], [start], [scheduled])
        seen += [] if selection is None else selection.position.tolist()
    assert seen == [2, 3, 4, 5]


def test_rows_follow_their_requests_when_the_batch_is_reordered():
    table = Table(4, 1)
    table.begin(_request("a", 2))
    table.begin(_request("b", 5))
    first = _select(table, ["a", "x", "b"], [0, 0, 0], [2, 7, 5])
    assert [r.key for r in first.requests] == ["a", "b"]
    assert first.token.tolist() == [1, 13]
    assert first.batch.tolist() == [0, 2]
    second = _select(table, ["b", "a"], [5, 2], [1, 1])
    assert [r.key for r in second.requests] == ["b", "a"]
    assert second.position.tolist() == [5, 2]
    assert second.slot.tolist() == first.slot.tolist()[::-1]


def test_bursts_of_three_come_every_stride_with_attention_at_the_third():
    table = Table(1, 24)
    table.begin(_request("a", 4, hash64=5 << 32))
    _select(table, ["a"], [0], [4])
    seen = {}
    for position in range(4, 60):
        selection = _select(table, ["a"], [position], [1])
        if selection is not None:
            seen[position - 4] = (int(selection.burst[0]), bool(selection.attention[0]))
    assert [d for d in seen if seen[d][1]] == [21, 45]
    assert sorted(seen) == [19, 20, 21, 43, 44, 45]
    assert [seen[d][0] for d in (19, 20, 21)] == [0, 1, 2]


def test_a_burst_that_began_in_the_prompt_is_measured_from_its_middle():
    table = Table(1, 24)
    table.begin(_request("a", 4, hash64=2 << 32))
    _select(table, ["a"], [0], [4])
    first = _select(table, ["a"], [4], [1])
    assert first.burst.tolist() == [0]
    assert first.attention.tolist() == [True]


def test_a_full_table_follows_no_more_and_a_freed_slot_starts_anew():
    table = Table(1, 1)
    assert table.begin(_request("a", 3)) == 0
    assert table.begin(_request("b", 3)) is None
    _select(table, ["a"], [0], [3])
    ended, last = table.end("a")
    assert (ended.key, last) == ("a", 2)
    assert table.end("a") is None
    table.begin(_request("b", 3))
    assert _select(table, ["b"], [0], [3]).position.tolist() == [2]


def test_draws_are_uniform_and_differ_by_request_and_position():
    seeds = np.arange(2000, dtype=np.uint64)
    drawn = draw(seeds, np.zeros(2000, np.int64))
    assert 0 < drawn.min() < 0.01
    assert 0.99 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.03
    other = draw(seeds, np.ones(2000, np.int64))
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.1
