"""Length of the periodic tail against its definition."""

import numpy as np
import pytest

from introspan.capture.output.repetition import longest_period_tail


def naive(tokens, periods=64):
    """max over k of r_k + k where that is >= 3k or 168, counted token by token."""
    best = 0
    for k in range(1, periods + 1):
        run = 0
        while run < len(tokens) - k and tokens[-1 - run] == tokens[-1 - run - k]:
            run += 1
        best = max(best, run + k) if run + k >= min(3 * k, 168) else best
    return best


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0),
        ([5], 0),
        ([5, 5], 0),
        ([5, 5, 5], 3),
        ([1, 2, 3, 9, 9, 9, 9], 4),
        ([1, 2, 1, 2, 1], 0),
        ([1, 2, 1, 2, 1, 2], 6),
        ([7, 1, 2, 1, 2, 1, 2, 1], 7),
        (list(range(64)) * 3, 192),
        ((list(range(64)) * 3)[:168], 168),
        ((list(range(64)) * 3)[:167], 0),
        (list(range(65)) * 3, 0),
        (list(range(10)) * 500, 5000),
        ([9] * 100 + [1], 0),
    ],
)
def test_known_tails(tokens, expected):
    assert longest_period_tail(np.array(tokens, dtype=np.int64)) == expected == naive(tokens)


def test_tails_longer_than_any_window_are_counted_whole():
    rng = np.random.default_rng(0)
    for run in (63, 64, 65, 127, 128, 129, 1343, 1344, 1345, 9000):
        tokens = np.concatenate([rng.integers(100, 200, 500), np.resize([1, 2, 3], run)])
        assert longest_period_tail(tokens) == run


def test_a_stream_that_repeats_nothing_is_compared_once_a_period():
    class Counted(np.ndarray):
        compared = 0

        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            result = getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **kwargs)
            Counted.compared += np.size(result)
            return result

    tokens = np.arange(100_000).view(Counted)
    assert longest_period_tail(tokens) == 0
    assert Counted.compared == 64
