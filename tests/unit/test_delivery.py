"""How far a request's tokens were delivered, where a pipeline stage never sees any of them."""

import numpy as np
import pytest

from introspan.capture.step.delivery import Deliveries
from introspan.capture.step.ending import Ending
from introspan.observation import Request

DEPTH, SLOT = 2, 1


def last_delivered(ending, steps):
    """Of a request of so many steps, one token each, that ends then: the last position that counts."""
    request = Request("r", "r", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 7)
    deliveries = Deliveries(4, DEPTH)
    for position in range(steps):
        deliveries.schedule()
        deliveries.confirm()
        if position == 0:
            deliveries.begin(SLOT, request, ending)
        deliveries.add(np.array([SLOT]), np.array([position]), None, None)
    deliveries.schedule()
    deliveries.finish(SLOT, request)
    (ended,) = deliveries.end(lambda _: False)
    return ended.last_position


@pytest.mark.parametrize("token", [0, 2])
def test_at_its_longest_every_row_counts_whatever_token_would_end_it(token):
    assert last_delivered(Ending(frozenset({token}), 7), steps=8) == 7


@pytest.mark.parametrize("token", [0, 2])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_ended_before_that_rows_of_the_last_steps_do_not_count(token, steps):
    assert last_delivered(Ending(frozenset({token}), 100), steps) == max(steps - DEPTH - 1, -1)
