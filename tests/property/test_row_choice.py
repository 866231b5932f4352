"""Which rows are measured, beside a description of it in words: of traffic with and without canaries in the batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from introspan.capture.rows import BURST, Table
from introspan.observation import Request

_REQUESTS = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 2**64 - 1), st.booleans()), min_size=1, max_size=6
)


def _measured(prompt_tokens: int, hash64: int, position: int, stride: int) -> tuple[int, bool] | None:
    """(place in the burst, whether attention is measured) of a row, None where it is not measured."""
    decoded = position - prompt_tokens
    if decoded < -1:
        return None
    if decoded == -1:
        return -1, True
    if stride <= BURST:
        last = (decoded + (hash64 >> 32) % stride) % stride == stride - 1
        return decoded, last
    offset = (decoded + (hash64 >> 32) % stride) % stride
    return (min(offset, decoded), offset == BURST - 1) if offset < BURST else None


@given(_REQUESTS, st.integers(1, 40), st.data())
def test_each_request_is_measured_by_its_own_stride(requests, stride, data):
    table = Table(len(requests), stride)
    start = np.zeros(len(requests), np.int64)
    ids = [str(i) for i in range(len(requests))]
    for name, (prompt_tokens, hash64, is_canary) in zip(ids, requests, strict=True):
        table.begin(Request(name, name, bytes(16), bytes(8), 0, "", prompt_tokens, 0, 1.0, hash64, is_canary))
    for _ in range(40):
        scheduled = np.array(
            [
                data.draw(st.integers(1, prompt - done)) if done < prompt else 1
                for (prompt, _, _), done in zip(requests, start.tolist(), strict=True)
            ]
        )
        selection = table.select(ids, start, scheduled)
        start += scheduled
        expected = {
            str(i): (done - 1, *found)
            for i, ((prompt, hash64, is_canary), done) in enumerate(
                zip(requests, start.tolist(), strict=True)
            )
            if (found := _measured(prompt, hash64, done - 1, 1 if is_canary else stride))
        }
        got = {}
        if selection is not None:
            rows = zip(
                selection.requests, selection.position, selection.burst, selection.attention, strict=True
            )
            got = {request.key: tuple(values) for request, *values in rows}
        assert got == expected
