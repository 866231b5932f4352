"""Pipeline stages send the states of a canary's answer at their own layers: it is one answer, with all of them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.canary.answer import Join
from tests.canary_rounds import LAYERS, Model, output_batch, state_batch
from tests.workers import spread

NOW = 1_000.0


@pytest.fixture(scope="module")
def answer():
    return Model().rounds(1)[0]["short"]


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_an_answer_is_whole_once_every_stage_has_sent_its_layers(answer, order):
    halves = [output_batch(answer, NOW), *spread(state_batch(answer, NOW), 2, bound=7, where="canaries")]
    join = Join()
    assert [one for i in order[:-1] for one in join.add(halves[i])] == []
    (one,) = join.add(halves[order[-1]])
    assert one.states.values.shape[1] == LAYERS + 1
    assert one.states.position.tolist() == answer.states.position.tolist()
    assert np.allclose(one.states.values, answer.states.values, atol=1e-6)
    assert one.origin.fingerprint == "f00d"


def test_rows_of_stages_in_several_batches_are_put_where_they_belong(answer):
    first, second = spread(state_batch(answer, NOW), 2, bound=7, where="canaries")
    early, late = (
        spread(state_batch(answer, NOW, rows), 2, bound=7, where="canaries")
        for rows in (slice(0, 3), slice(3, None))
    )
    join = Join()
    for batch in (output_batch(answer, NOW), early[0], late[0], early[1]):
        assert join.add(batch) == []
    (one,) = join.add(late[1])
    assert np.allclose(one.states.values, answer.states.values, atol=1e-6)
    assert first.origin.pipeline_parallel_size == second.origin.pipeline_parallel_size == 2


def test_of_a_stage_that_sends_nothing_the_layers_are_not_there_and_the_answer_is(answer):
    first, _ = spread(state_batch(answer, NOW), 2, bound=7, where="canaries")
    join = Join()
    assert join.add(output_batch(answer, NOW)) == join.add(first) == []
    (one,) = join.late(int((NOW + 1) * 1e9))
    assert one.states.values.shape[1] == 7


def test_what_is_not_finite_is_counted_over_all_stages(answer):
    values = answer.states.values.copy()
    values[0, 3:] = np.nan
    broken = replace(answer, states=replace(answer.states, values=values))
    join = Join()
    join.add(output_batch(broken, NOW))
    found = [
        one
        for batch in spread(state_batch(broken, NOW), 2, bound=7, where="canaries")
        for one in join.add(batch)
    ]
    assert [one.states.nonfinite for one in found] == [LAYERS + 1 - 3]
