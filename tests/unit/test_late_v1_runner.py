"""Every delivered token's row once and with its own numbers, where the V1 runner's scheduling is asynchronous."""

import pytest

from tests.device_double import END, device
from tests.followed import FEW_BLOCKS, check, watch
from tests.v2_engine import Plan, configuration


@pytest.fixture(scope="module")
def engine_config(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, device(patch):
        config = configuration(tmp_path_factory.mktemp("model"), patch, is_v2=False)
        yield lambda: config


def test_rows_behind_a_stop_are_dropped_and_all_others_kept(engine_config):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=60, at=2 * i) for i in range(6)}
    watched = watch(engine_config, is_second=False)
    watched.run(plans, early=(False, True, False))
    check(watched, plans, depth=2)
    stopped = [key for key in plans if watched.engine.delivered[key][-1] == END]
    assert len(stopped) > 2, "nothing stopped: nothing was tested"
    assert 0 < watched.health.dropped_rows["not_delivered"] <= len(stopped)


def test_preempted_and_aborted_requests_have_the_rows_of_their_delivered_tokens(engine_config):
    plans = {f"r{i}": Plan(prompt=20, most=60, ends=False, at=i) for i in range(5)}
    plans |= {f"a{i}": Plan(prompt=9, most=60, ends=False, at=3 * i, abort_at=30 + 7 * i) for i in range(3)}
    watched = watch(engine_config, blocks=FEW_BLOCKS, is_second=False)
    watched.run(plans)
    assert watched.engine.preemptions > 0, "the cache was large enough for all: nothing was tested"
    check(watched, plans, depth=2)


def test_a_request_that_is_preempted_and_goes_on_at_once_is_measured_where_its_tokens_were_delivered(
    engine_config,
):
    watched = watch(engine_config, is_second=False)
    engine, plan = watched.engine, Plan(prompt=5, most=12, ends=False)
    engine.add("r0", plan, 0)
    for _ in range(5):
        engine.step()
    assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    while not engine.is_idle:
        engine.step()
    check(watched, {"r0": plan}, depth=2)
    assert watched.health.dropped_rows["not_delivered"] >= 1, "nothing was on its way: nothing was tested"


def test_a_runner_that_reads_its_tokens_itself_is_measured_by_them(engine_config):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=40, at=2 * i) for i in range(4)}
    watched = watch(engine_config, depth=1, is_second=False)
    watched.engine.runner.reads_tokens = True
    watched.run(plans)
    check(watched, plans, depth=1)
    assert not watched.health.errors


def test_rows_of_which_nobody_has_said_that_they_were_delivered_are_counted_where_the_engine_ends(
    engine_config,
):
    watched = watch(engine_config, is_second=False)
    watched.engine.add("r0", Plan(prompt=5, most=40, ends=False), 0)
    for _ in range(20):
        watched.engine.step()
    watched.recorder.close()
    handed_on, measured = len(watched.positions("r0")), watched.health.measured_rows
    assert 10 < handed_on < measured
    assert watched.health.dropped_rows == {"not_delivered": measured - handed_on}
    watched.recorder.close()
    assert watched.health.dropped_rows == {"not_delivered": measured - handed_on}, "each once"
