"""Whose rows are kept on a device where there are more requests than places."""

import numpy as np
import pytest
import torch

from introspan.capture.rows import Selection
from introspan.capture.stream.kept_rows import MOST_BYTES, KeptRows
from introspan.capture.stream.succession import Successions
from introspan.observation import Request

GOES_ON, IS_OVER = False, True
REQUEST = Request("a", "a", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0)


class Batches:
    """Rows of requests, one each, in batches one after another, with two places."""

    def __init__(self) -> None:
        self.kept = KeptRows(3, 8, torch.bfloat16, torch.device("cpu"), places=2)
        self._successions = Successions(6)

    def come(self, **ends: bool) -> list[int]:
        """Slots that lost what they had, or got nothing; a1 = slot 1; each says whether its burst is over."""
        slots = np.array([int(name[1]) for name in ends])
        n = len(slots)
        selection = Selection(
            [REQUEST] * n,
            slots,
            slots,
            slots,
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.array(list(ends.values())),
        )
        return self.kept.keep(selection, self._successions.find(selection)).lost


@pytest.fixture
def batches():
    return Batches()


def test_a_request_in_its_burst_loses_its_place_to_nobody(batches):
    assert batches.come(a0=GOES_ON, a1=GOES_ON, a2=GOES_ON) == [2]
    before = batches.kept.cells(0), batches.kept.cells(1)
    assert batches.come(a2=GOES_ON) == [2]
    assert (batches.kept.cells(0), batches.kept.cells(1)) == before


@pytest.mark.parametrize("end", [GOES_ON, IS_OVER])
def test_a_request_whose_burst_is_over_makes_room(batches, end):
    assert batches.come(a0=GOES_ON, a1=IS_OVER) == []
    assert batches.come(a2=end) == ([1] if end is GOES_ON else [2])


def test_a_request_that_goes_on_comes_before_one_that_may_be_through(batches):
    assert batches.come(a0=IS_OVER, a1=GOES_ON, a2=GOES_ON) == [0]


def test_a_request_that_was_in_no_batch_lately_makes_room_and_the_oldest_first(batches):
    batches.come(a0=GOES_ON)
    batches.come(a1=GOES_ON)
    batches.come(a1=GOES_ON)
    assert batches.come(a1=GOES_ON, a2=GOES_ON) == [0]


def test_what_is_forgotten_makes_room(batches):
    batches.come(a0=GOES_ON, a1=GOES_ON)
    batches.kept.forget(0)
    batches.kept.forget(5)
    assert batches.come(a2=GOES_ON) == []


def test_no_two_requests_share_a_cell_and_rows_go_to_their_own_by_turns(batches):
    batches.come(a0=GOES_ON, a1=GOES_ON)
    first = [*batches.kept.cells(0), *batches.kept.cells(1)]
    assert sorted(first) == [0, 1, 2, 3]
    batches.come(a0=GOES_ON)
    assert batches.kept.cells(0) == (first[1], first[0])
    assert batches.kept.rows.nbytes == 2 * 2 * 3 * 8 * 2, "places, rows each, layers, numbers, bytes"


@pytest.mark.parametrize(
    ("layers", "width", "places"), [(8, 4096, 64), (8, 8192, 64), (80, 8192, 6), (1000, 100_000, 1)]
)
def test_rows_of_many_layers_have_fewer_places_in_memory_that_has_a_bound(layers, width, places):
    rows = KeptRows(layers, width, torch.bfloat16, torch.device("meta")).rows
    assert len(rows) == 2 * places
    assert rows.nbytes <= MOST_BYTES or places == 1
