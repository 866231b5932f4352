"""Every delivered token's row once and with its own numbers, whatever the V2 runner and its scheduler do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device_double import END, VOCABULARY, device, drawn
from tests.followed import FEW_BLOCKS, MANY_BLOCKS, PLANS, check, check_values, watch
from tests.v2_engine import Plan, configuration


@pytest.fixture(scope="module")
def engine_config(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, device(patch):
        config = configuration(tmp_path_factory.mktemp("model"), patch)
        yield lambda: config  # so that a report of a failure does not try to print it


def test_each_delivered_token_has_its_row_and_the_one_behind_a_stop_has_none(engine_config):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=60, at=2 * i) for i in range(6)}
    watched = watch(engine_config)
    watched.run(plans)
    check(watched, plans, depth=2)
    stopped = [key for key in plans if watched.engine.delivered[key][-1] == END]
    assert len(stopped) > 2, "nothing stopped: nothing was tested"
    assert watched.health.dropped_rows["not_delivered"] == len(stopped)


def test_without_asynchronous_scheduling_no_row_is_behind_a_stop(engine_config):
    plans = {f"r{i}": Plan(prompt=3 + 11 * i, most=60, at=2 * i) for i in range(6)}
    watched = watch(engine_config, depth=1)
    watched.run(plans)
    check(watched, plans, depth=1)
    assert not watched.health.dropped_rows


def test_rows_of_a_preempted_request_are_measured_once(engine_config):
    plans = {f"r{i}": Plan(prompt=20, most=60, ends=False, at=i) for i in range(5)}
    watched = watch(engine_config, blocks=FEW_BLOCKS)
    watched.run(plans)
    assert watched.engine.preemptions > 0, "the cache was large enough for all: nothing was tested"
    check(watched, plans, depth=2)


def test_padding_and_dummy_runs_are_nobodys_rows(engine_config):
    plans = {f"r{i}": Plan(prompt=5 + i, most=30, ends=False, at=i) for i in range(4)}
    watched = watch(engine_config, padding=7)
    watched.run(plans, dummies=range(0, 100, 3))
    check(watched, plans, depth=2)


def test_requests_that_warm_the_runner_up_are_not_measured(engine_config):
    plans = {
        name: Plan(prompt=2, most=4, ends=False)
        for name in ("_warmup_0_", "_v2_mixed_warmup_prefill_", "chat")
    }
    watched = watch(engine_config)
    watched.run(plans)
    assert list(watched.rows) == ["chat"]
    assert watched.health.measured_rows == 4


def test_an_id_that_is_given_again_means_another_request(engine_config):
    watched = watch(engine_config)
    watched.run({"same": Plan(prompt=6, most=9, ends=False)})
    first, watched.rows = watched.rows, {}
    watched.engine.delivered.clear()
    plans = {"same": Plan(prompt=4, most=5, ends=False)}
    watched.run(plans)
    assert [position for position, _ in first["same"]] == list(range(5, 14))
    assert watched.positions("same") == list(range(3, 8))
    assert watched.ended == [("same", 13), ("same", 7)]


def test_a_request_that_is_preempted_and_goes_on_at_once_is_measured_where_its_tokens_were_delivered(
    engine_config,
):
    """What was on its way is dropped by the scheduler and drawn again: its first row is nobody's."""
    watched = watch(engine_config)
    engine = watched.engine
    engine.add("r0", Plan(prompt=5, most=12, ends=False), 0)
    for _ in range(5):
        engine.step(is_early=False)
    assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    while not engine.is_idle:
        engine.step(is_early=False)
    check(watched, {"r0": Plan(prompt=5, most=12, ends=False)}, depth=2)
    assert watched.health.dropped_rows["not_delivered"] >= 1, "nothing was on its way: nothing was tested"


def test_with_speculative_decoding_prompts_alone_are_measured(engine_config):
    plans = {f"r{i}": Plan(prompt=5 + 9 * i, most=10, ends=False, at=i) for i in range(4)}
    watched = watch(engine_config, prompts_only=True)
    scheduler = watched.engine.scheduler
    hand_over = scheduler.schedule

    def with_drafts():
        """Of every decoded request two tokens more are computed, which are guesses."""
        scheduled = hand_over()
        for key, computed in zip(
            scheduled.scheduled_cached_reqs.req_ids,
            scheduled.scheduled_cached_reqs.num_computed_tokens,
            strict=True,
        ):
            if computed >= plans[key].prompt:
                scheduled.scheduled_spec_decode_tokens[key] = [1, 1]
                scheduled.num_scheduled_tokens[key] += 2
                scheduled.total_num_scheduled_tokens += 2
        return scheduled

    scheduler.schedule = with_drafts
    scheduler.update_from_output = lambda scheduled, answer, take=scheduler.update_from_output: take(
        _without_drafts(scheduled), answer
    )
    watched.run(plans)
    assert {key: watched.positions(key) for key in plans} == {
        key: [plan.prompt - 1] for key, plan in plans.items()
    }
    for key in plans:
        check_values(watched, key)
    assert not watched.health.errors


def _without_drafts(scheduled):
    for key, drafts in scheduled.scheduled_spec_decode_tokens.items():
        scheduled.num_scheduled_tokens[key] -= len(drafts)
    scheduled.scheduled_spec_decode_tokens.clear()
    return scheduled


def test_what_ends_with_the_engine_idle_is_handed_on_at_once(engine_config):
    watched = watch(engine_config)
    watched.run({"only": Plan(prompt=4, most=3, ends=False)})
    assert watched.engine.is_idle
    assert watched.positions("only") == [3, 4, 5]
    assert watched.ended == [("only", 5)]


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    plans=PLANS,
    depth=st.sampled_from([1, 2, 2, 2]),
    blocks=st.sampled_from([FEW_BLOCKS, MANY_BLOCKS]),
    padding=st.integers(0, 3),
    early=st.lists(st.booleans(), max_size=7),
    aborts_between=st.booleans(),
    dummies=st.sets(st.integers(0, 40), max_size=4),
)
def test_whatever_comes_rows_are_those_of_delivered_tokens(
    engine_config, plans, depth, blocks, padding, early, aborts_between, dummies
):
    watched = watch(engine_config, depth=depth, blocks=blocks, padding=padding)
    watched.engine.aborts_between_steps = aborts_between
    watched.run(plans, early, dummies)
    check(watched, plans, depth)


def test_vocabulary_has_ends_and_what_is_no_end():
    tokens = {drawn(seed, position) for seed in range(8) for position in range(60)}
    assert END in tokens
    assert len(tokens) > VOCABULARY // 2
