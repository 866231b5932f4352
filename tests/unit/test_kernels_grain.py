"""How keys are divided into tiles and ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspan.capture.kernels.paged_attention import Grain


@given(
    keys=st.integers(1, 10_000),
    offset=st.integers(0, 10_000),
    tile=st.sampled_from([16, 32, 64]),
    range_keys=st.sampled_from([8, 64, 512]),
)
def test_ranges_hold_all_keys_of_a_window_wherever_it_begins(keys, offset, tile, range_keys):
    ranges, of_range = Grain(range_keys=range_keys).ranges(keys, tile)
    begin = offset // tile * tile
    assert begin + ranges * of_range >= offset + keys
    assert of_range % tile == 0
    assert 1 <= ranges <= 64


def test_a_long_context_is_divided_among_programs_and_a_longer_one_among_no_more():
    grain = Grain()
    assert grain.ranges(2_000, 64) == (5, 512)
    assert grain.ranges(32_768, 64)[0] > 50
    assert grain.ranges(1_000_000, 64)[0] <= 64


@pytest.mark.parametrize(("vector_bytes", "tile"), [(64, 64), (256, 64), (512, 32), (1024, 16), (4096, 16)])
def test_a_tile_of_wide_keys_has_fewer_of_them(vector_bytes, tile):
    assert Grain().tile(vector_bytes) == tile
