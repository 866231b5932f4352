"""Halves of canary answers, in whatever order and however cut up, become whole answers; a flood becomes a number."""

from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.canary.answer import Join
from tests.canary_rounds import LAYERS, Model, output_batch, state_batch

NOW = 1_000.0


@pytest.fixture(scope="module")
def answer():
    return Model().rounds(1)[0]["short"]


@pytest.mark.parametrize(
    "order", ["outputs first", "states first", "states in parts", "parts around", "parts reversed"]
)
def test_halves_in_any_order_and_number_give_one_answer(answer, order):
    outputs = output_batch(answer, NOW)
    states = state_batch(answer, NOW)
    parts = [state_batch(answer, NOW, slice(0, 3)), state_batch(answer, NOW, slice(3, None))]
    batches = {
        "outputs first": [outputs, states],
        "states first": [states, outputs],
        "states in parts": [*parts, outputs],
        "parts around": [parts[0], outputs, parts[1]],
        "parts reversed": [outputs, parts[1]],
    }[order]
    join = Join()
    found = [one for batch in batches for one in join.add(batch)]
    assert len(found) == 1
    (one,) = found
    assert (one.prompt, one.round, one.origin.fingerprint) == ("short", answer.round, "f00d")
    assert one.outputs.prompt_tokens == answer.outputs.prompt_tokens
    for name in ("position", "token", "logprob", "top_token", "top_logprob"):
        assert np.array_equal(getattr(one.outputs, name), getattr(answer.outputs, name)), name
    expected = answer.states.position if order != "parts reversed" else answer.states.position[3:]
    assert one.states.position.tolist() == expected.tolist()
    assert np.allclose(one.states.values, answer.states.values[-len(expected) :], atol=1e-6)
    assert one.states.values.shape[1] == LAYERS + 1


def test_states_that_never_come_are_done_without_and_outputs_that_never_come_are_given_up(answer):
    join = Join()
    join.add(output_batch(answer, NOW))
    join.add(state_batch(replace(answer, round="f" * 16), NOW))
    assert join.late(int((NOW - 1) * 1e9)) == []
    (one,) = join.late(int((NOW + 1) * 1e9))
    assert one.states is None
    assert one.outputs.prompt_tokens == answer.outputs.prompt_tokens
    assert join.given_up == 1
    assert join.late(int((NOW + 9) * 1e9)) == []


def test_a_flood_of_halves_is_bounded_and_counted(answer):
    join = Join()
    for number in range(1_000):
        join.add(state_batch(replace(answer, round=f"{number:016x}"), NOW, slice(0, 1)))
    assert len(join.parts) <= 512
    assert join.given_up == 1_000 - len(join.parts)


def test_rows_without_end_for_one_answer_are_cut_and_counted(answer):
    join, states = Join(), answer.states
    for first in range(0, 800, 8):
        more = replace(states, position=np.arange(first, first + 8))
        join.add(state_batch(replace(answer, states=more), NOW))
    (parts,) = join.parts.values()
    assert len(parts.states[1].position) <= 64
    assert join.foreign >= 800 - 64


@pytest.mark.parametrize("change", [{"suite": "00000000"}, {"prompt": "unheard_of"}])
def test_questions_of_another_version_are_counted_and_joined_to_nothing(answer, change):
    join, other = Join(), replace(answer, **change)
    assert join.add(output_batch(other, NOW)) == join.add(state_batch(other, NOW)) == []
    assert join.late(int((NOW + 9) * 1e9)) == []
    assert join.foreign == len(answer.outputs.position) + len(answer.states.position)


def test_a_producer_that_claims_four_billion_layers_gets_room_for_those_it_measured(answer):
    join = Join()
    batch = state_batch(answer, NOW)
    join.add(replace(batch, origin=replace(batch.origin, layer_count=2**32 - 1)))
    (one,) = join.add(output_batch(answer, NOW))
    assert one.states.values.shape[1] == LAYERS + 1
