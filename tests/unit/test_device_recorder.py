"""Each delivered token's row once and with its own numbers, where values come from the device steps later."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device_double import device
from tests.followed import FEW_BLOCKS, MANY_BLOCKS, PLANS, check, watch
from tests.v2_engine import Plan, configuration


@pytest.fixture(scope="module")
def engine_config(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, device(patch):
        config = configuration(tmp_path_factory.mktemp("model"), patch)
        yield lambda: config  # so that a report of a failure does not try to print it


@pytest.mark.parametrize("lag", [0, 1, 4])
@pytest.mark.parametrize("is_second", [True, False])
def test_rows_go_on_when_their_values_have_come(engine_config, lag, is_second):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=60, at=2 * i) for i in range(6)}
    watched = watch(engine_config, lag=lag, is_second=is_second)
    watched.run(plans)
    check(watched, plans, depth=2)
    assert watched.engine.is_idle
    assert watched.recorder._table.followed() == []


@pytest.mark.parametrize("is_second", [True, False])
def test_rows_of_an_engine_that_schedules_nothing_ahead_go_on_too(engine_config, is_second):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=60, at=2 * i) for i in range(6)}
    watched = watch(engine_config, depth=1, lag=2, is_second=is_second)
    watched.run(plans)
    check(watched, plans, depth=1)


def test_a_slot_that_is_free_again_is_given_to_nobody_before_its_values_have_come(engine_config):
    plans = {f"r{i}": Plan(prompt=2, most=2, ends=False, at=2 * i) for i in range(40)}
    watched = watch(engine_config, lag=4)
    watched.run(plans)
    check(watched, plans, depth=2)


def test_what_was_drawn_in_vain_and_is_still_under_way_is_dropped(engine_config):
    plans = {f"r{i}": Plan(prompt=20, most=60, ends=False, at=i) for i in range(5)}
    watched = watch(engine_config, blocks=FEW_BLOCKS, lag=6)
    watched.run(plans)
    assert watched.engine.preemptions > 0, "the cache was large enough for all: nothing was tested"
    check(watched, plans, depth=2)


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    plans=PLANS,
    depth=st.sampled_from([1, 2, 2, 2]),
    blocks=st.sampled_from([FEW_BLOCKS, MANY_BLOCKS]),
    early=st.lists(st.booleans(), max_size=7),
    aborts_between=st.booleans(),
    lag=st.integers(0, 7),
)
def test_whatever_comes_rows_are_those_of_delivered_tokens(
    engine_config, plans, depth, blocks, early, aborts_between, lag
):
    watched = watch(engine_config, depth=depth, blocks=blocks, lag=lag)
    watched.engine.aborts_between_steps = aborts_between
    watched.run(plans, early)
    check(watched, plans, depth)
