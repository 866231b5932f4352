"""What a round of the canary says: how far off, where that begins, and whether it matters to anybody."""

from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.canary.baseline import build
from introspan_collector.detect.canary.comparison import (
    ARCHITECTURE,
    EMBEDDING,
    HEAD,
    PAGE_RATIO,
    TEXT,
    compare,
)
from introspan_collector.detect.canary.expected import rounding
from introspan_collector.detect.canary.place import steps_of
from tests.canary_rounds import LAYERS, Fault, Model, without_states

DTYPES = ("float32", "bfloat16")


@pytest.fixture(scope="module", params=DTYPES)
def model(request):
    return Model(request.param)


@pytest.fixture(scope="module")
def baseline(model):
    return build(model.rounds(64))


def found(model, baseline, fault=None, seed=50, **how):
    (answers,) = model.rounds(1, seed, **({"fault": fault} if fault else {}), **how)
    return compare(baseline, answers)


def test_healthy_rounds_are_still(model, baseline):
    for answers in model.rounds(40, seed=2):
        one = compare(baseline, answers)
        assert not one.deviates
        assert (one.place, one.layer, one.flipped, one.nonfinite) == ("", None, 0, 0)
        assert one.kl_nats < 1e-3
        assert one.has_states


@pytest.mark.parametrize("layer", [0, 1, LAYERS // 2, LAYERS - 1])
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_a_damaged_layer_is_named_exactly(model, baseline, layer, scale):
    one = found(model, baseline, Fault(layer, scale))
    assert one.deviates
    assert (one.layer, one.place) == (layer, f"layer {layer}")
    assert not one.equivalent


def test_a_slightly_damaged_layer_is_named_by_what_it_adds_where_states_deviate_too_late():
    model = Model("bfloat16", layers=30)
    baseline = build(model.rounds(64))
    right = {"steps": 0, "states": 0}
    for layer in range(30):
        one = found(model, baseline, Fault(layer, 1.2), seed=layer)
        steps = np.flatnonzero(np.array(one.step_ratio) > 2)
        states = np.flatnonzero(np.array(one.state_ratio) > PAGE_RATIO)
        right["steps"] += bool(steps.size) and steps[0] - 1 == layer
        right["states"] += bool(states.size) and states[0] - 1 == layer
    assert right["steps"] >= 29
    assert right["states"] <= 10


def test_a_damaged_embedding_is_named(model, baseline):
    one = found(model, baseline, Fault(embedding=0.5))
    assert one.deviates
    assert (one.layer, one.place) == (None, EMBEDDING)


def test_a_damaged_head_moves_outputs_alone_and_is_named(model, baseline):
    one = found(model, baseline, Fault(head=0.5))
    assert one.deviates
    assert max(one.state_ratio) < PAGE_RATIO
    assert (one.layer, one.place) == (None, HEAD)


def test_another_tokenizer_or_template_is_named_and_never_equivalent(model, baseline):
    one = found(model, baseline, Fault(text=2))
    assert one.deviates
    assert one.ratio == float("inf")
    assert (one.place, one.equivalent) == (TEXT, False)


def test_another_architecture_is_named_and_nothing_fails(model, baseline):
    one = compare(baseline, Model(model.origin.dtype, layers=LAYERS + 3).rounds(1)[0])
    assert one.deviates
    assert (one.place, one.layer, one.equivalent) == (ARCHITECTURE, None, False)


def test_a_stale_cache_shows_in_the_question_that_is_read_from_it(model, baseline):
    one = found(model, baseline, Fault(cache=1.0))
    assert one.consistency_ratio > PAGE_RATIO
    assert one.deviates
    assert found(model, baseline).consistency_ratio < PAGE_RATIO


@pytest.mark.parametrize("first", [0, 4, LAYERS])
def test_where_values_stop_being_finite_is_where_it_begins(model, baseline, first):
    one = found(model, baseline, Fault(nonfinite_from=first))
    assert one.nonfinite > 0
    assert one.deviates
    assert not one.equivalent
    assert one.place == (f"layer {first - 1}" if first else EMBEDDING)


def test_a_change_at_the_level_of_rounding_is_far_off_and_equivalent():
    model = Model("float32")
    baseline = build(model.rounds(64))
    one = found(model, baseline, noise=200.0)
    assert one.deviates
    assert one.equivalent


def reordered(answers, places):
    """A round in which these tokens are the likeliest of a position of the long question, in this order."""
    outputs = answers["long"].outputs
    tokens, logprobs = outputs.top_token.copy(), outputs.top_logprob.copy()
    tokens[3, : len(places)], logprobs[3, : len(places)] = tokens[3, places], logprobs[3, places]
    changed = replace(outputs, top_token=tokens, top_logprob=logprobs)
    return answers | {"long": replace(answers["long"], outputs=changed)}


def test_what_healthy_rounds_waver_between_is_no_other_likeliest_token():
    model = Model("float32")
    rounds = model.rounds(65)
    wavering = [reordered(one, [1, 0]) if i % 8 == 3 else one for i, one in enumerate(rounds[:64])]
    agreement = [
        compare(build(healthy), reordered(rounds[64], places)).top1
        for healthy in (rounds[:64], wavering)
        for places in ([0], [1, 0], [2, 1, 0])
    ]
    other = agreement[1]
    assert other < 1.0
    assert agreement == [1.0, other, other, 1.0, 1.0, other]


@pytest.mark.parametrize("dtype", DTYPES)
def test_healthy_rounds_are_equivalent_to_healthy_rounds(dtype):
    model = Model(dtype)
    baseline = build(model.rounds(64))
    assert all(compare(baseline, answers).equivalent for answers in model.rounds(30, seed=2))


def test_after_a_greedy_token_that_differs_nothing_is_compared(model, baseline):
    (answers,) = model.rounds(1, seed=9)
    short = answers["short"]
    place = len(short.outputs.token) - 5
    outputs = replace(
        short.outputs, token=short.outputs.token.copy(), logprob=short.outputs.logprob.copy(),
        top_logprob=short.outputs.top_logprob.copy(), top_token=short.outputs.top_token.copy(),
    )  # fmt: skip
    outputs.token[place] = (outputs.token[place] + 1) % 200
    outputs.top_logprob[place + 1 :] -= 3.0
    outputs.logprob[place:] -= 3.0
    states = replace(short.states, values=short.states.values.copy())
    states.values[-1] += 5.0
    one = compare(baseline, answers | {"short": replace(short, outputs=outputs, states=states)})
    assert one.flipped == 5
    assert one.output_ratio < PAGE_RATIO
    assert max(one.state_ratio) < PAGE_RATIO, "the state of the last token belongs to another text"


@pytest.mark.parametrize("lost", ["in the round", "in the baseline", "in both"])
def test_without_states_outputs_are_compared_and_no_layer_is_named(model, lost):
    rounds = model.rounds(64)
    if lost != "in the round":
        rounds = [without_states(one) for one in rounds]
    for fault, deviates in ((None, False), (Fault(3, 0.0), True)):
        (answers,) = model.rounds(1, 5, **({"fault": fault} if fault else {}))
        if lost != "in the baseline":
            answers = without_states(answers)
        one = compare(build(rounds), answers)
        assert one.deviates == deviates
        assert (one.layer, one.place, one.has_states) == (None, "", False)


def test_a_round_without_anything_in_common_is_refused(baseline):
    with pytest.raises(ValueError, match="overlap"):
        compare(baseline, {})


def test_floors_rest_on_rounding_where_all_rounds_are_equal_to_the_last_bit():
    model = Model("float32")
    baseline = build(model.rounds(64, noise=0.0))
    for question in baseline.questions.values():
        assert question.state_floor == pytest.approx(rounding("float32") * np.sqrt(33))
        assert question.output_floor == pytest.approx(10 * rounding("float32"))
    assert baseline.distances.max() == 0
    for answers in model.rounds(20, seed=3):  # others in the batch change the last bits
        one = compare(baseline, answers)
        assert not one.deviates
        assert one.ratio < baseline.rank_limit
    assert baseline.rank_limit == PAGE_RATIO, "nothing is known of what else may change"


def test_rounds_of_which_one_is_faulty_make_no_baseline(model):
    rounds = model.rounds(63) + model.rounds(1, 5, fault=Fault(3, 0.0))
    with pytest.raises(ValueError, match="1 of 64 are more than 8"):
        build(rounds)


def test_rounds_that_are_too_few_cut_short_or_of_several_models_make_no_baseline(model):
    rounds = model.rounds(64)
    with pytest.raises(ValueError, match="must be >= 64, got 63"):
        build(rounds[:63])
    with pytest.raises(ValueError, match="cut short"):
        build([{"short": rounds[0]["short"]}, *rounds[1:]])
    with pytest.raises(ValueError, match="same tokens"):
        build([*rounds[:63], model.rounds(1, fault=Fault(text=1))[0]])
    with pytest.raises(ValueError, match="as many layers"):
        build([*rounds[:63], without_states(rounds[63])])
    assert len(build(rounds[:4], fewest=4).distances) == 4


@pytest.mark.thorough
def test_a_new_round_exceeds_all_of_a_baseline_no_oftener_than_chance_allows():
    """Floors leave out the round that they judge; otherwise what is new would look further off than it is."""
    higher = largest = 0
    for seed in range(12):
        model = Model("bfloat16", layers=4, seed=seed)
        baseline = build(model.rounds(64, seed))
        assert baseline.rank_limit == max(2.0, baseline.distances[-1])
        new = [compare(baseline, one) for one in model.rounds(20, seed + 100)]
        higher += sum(one.ratio > baseline.distances[-1] for one in new)
        largest += sum(one.distance > baseline.largest_limit for one in new)
    assert higher / 240 <= 0.07, "m = 1 − 0.01^(1/64)"
    assert largest / 240 <= 0.07


def test_two_ways_to_compute_a_token_may_differ_as_they_always_have():
    model, always = Model("float32"), Fault(cache=1e-3)
    baseline = build(model.rounds(64, fault=always))
    assert not found(model, baseline, always).deviates
    assert found(model, baseline, Fault(cache=1e-1)).consistency_ratio > PAGE_RATIO


def test_a_step_is_what_a_layer_adds_to_the_projected_stream():
    h = np.random.default_rng(0).normal(size=(5, 32)) * np.array([[1.0], [2.0], [3.0], [3.0], [40.0]])
    rms = np.sqrt(np.mean(h**2, axis=1, keepdims=True))
    states = np.concatenate([h / rms, np.sqrt(32) * np.log(rms)], axis=1)
    expected = np.diff(h, axis=0, prepend=0.0) / rms
    assert steps_of(states, states) == pytest.approx(expected)
