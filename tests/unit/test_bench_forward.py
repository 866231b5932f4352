from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.faults import questions, tiny, tuned
from bench.faults.answers import answers, origin
from bench.faults.batch import BLOCK_TOKENS, Chunk, Text, neighbour, steps
from bench.faults.cache import spoiled
from bench.faults.forward import Forward, Plan
from bench.faults.store import Sample, Store
from bench.faults.trial import Judge
from bench.faults.weights import bit_flip, changed, healthy_weights, matrix, mis_scaled, zeroed_shard

VOCABULARY, LAYERS = 512, 4


@pytest.fixture(scope="module")
def forward() -> Forward:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=16,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return Forward(LlamaForCausalLM(config).eval())


@pytest.fixture(scope="module")
def texts(forward: Forward) -> dict[str, Text]:
    random = np.random.default_rng(1)
    asked = {
        name: random.integers(0, VOCABULARY, n) for name, n in (("short", 9), ("long", 70), ("chat", 12))
    }
    return questions.requests(asked, questions.answered(forward.model, asked))


def plan(texts: dict[str, Text], seed: int) -> Plan:
    together = {**texts, "neighbour": neighbour(VOCABULARY, seed)}
    return Plan(together, steps(together, seed))


@pytest.mark.parametrize("seed", range(6))
def test_every_position_is_computed_once_and_after_what_it_needs(texts: dict[str, Text], seed: int) -> None:
    done = {name: text.cached for name, text in texts.items()}
    for step in plan(texts, seed).steps:
        before = dict(done)
        assert step
        for chunk in step:
            if chunk.name == "neighbour":
                continue
            text = texts[chunk.name]
            assert chunk.start == done[chunk.name]
            assert chunk.end - chunk.start == 1 or chunk.end <= text.prompt
            if text.after:
                assert before[text.after] == len(texts[text.after].ids)
            done[chunk.name] = chunk.end
    assert done == {name: len(text.ids) for name, text in texts.items()}


def test_batches_differ_in_their_composition(texts: dict[str, Text]) -> None:
    assert len({tuple(plan(texts, seed).steps) for seed in range(20)}) > 15


@pytest.mark.parametrize("seed", range(4))
def test_packed_batches_compute_what_the_model_computes(
    forward: Forward, texts: dict[str, Text], seed: int
) -> None:
    made = plan(texts, seed)
    streams = forward.streams(made)
    for name in ("short", "long", "extend", "repeat"):
        with torch.inference_mode():
            expected = forward.model(torch.from_numpy(texts[name].ids)[None], output_hidden_states=True)
        rows, positions = [], []
        for step in made.rows():
            for chunk, start, end, at in step:
                if chunk == name:
                    rows += range(at.start, at.stop)
                    positions += range(start, end)
        for layer in range(LAYERS):
            torch.testing.assert_close(
                streams[layer][rows], expected.hidden_states[layer][0, positions], atol=2e-4, rtol=1e-4
            )
        found = torch.cat(list(forward.logprobs(streams[-1][rows])))
        torch.testing.assert_close(found, expected.logits[0, positions].log_softmax(-1), atol=1e-3, rtol=1e-3)


def test_a_run_that_starts_at_a_layer_is_the_rest_of_one_from_the_start(
    forward: Forward, texts: dict[str, Text]
) -> None:
    made = plan(texts, 1)
    whole = forward.streams(made)
    rest = forward.streams(made, 2, whole[2])
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one, other)


def test_all_positions_moved_change_nothing_but_rounding_and_decoded_ones_do(
    forward: Forward, texts: dict[str, Text]
) -> None:
    made = plan(texts, 2)
    healthy = forward.streams(made)[-1]
    torch.testing.assert_close(forward.streams(made.moved(1, 0))[-1], healthy, atol=1e-3, rtol=1e-3)
    assert (forward.streams(made.moved(0, 1))[-1] - healthy).abs().max() > 1e-2


def test_neutral_changes_are_neutral_and_faults_are_not(forward: Forward, texts: dict[str, Text]) -> None:
    made, healthy = plan(texts, 3), healthy_weights(forward.model)
    expected = forward.streams(made)[-1]
    for change in (tiny.heads_permuted(1, 6, 3, 0), tiny.neurons_permuted(2, 0)):
        with changed(forward.model, healthy, change) as is_other:
            assert is_other
            torch.testing.assert_close(forward.streams(made)[-1], expected, atol=1e-3, rtol=1e-3)
    for change in (zeroed_shard(1, 0), mis_scaled(2, 0), tiny.noise(5, 0), tiny.pruned_random(0.1, 0)):
        with changed(forward.model, healthy, change) as is_other:
            assert is_other
            assert (forward.streams(made)[-1] - expected).abs().max() > 1e-2
    # Every change is taken back.
    assert torch.equal(forward.streams(made)[-1], expected)


def test_a_flipped_bit_is_one_weight_with_one_exponent_bit_more(forward: Forward) -> None:
    healthy = healthy_weights(forward.model)
    ((name, edited),) = bit_flip(2, 7).edit(healthy)
    before, after = (weights.view(torch.int32).flatten() for weights in (healthy[name], edited))
    differs = torch.nonzero(before != after).flatten()
    assert len(differs) == 1
    flipped = int(before[differs] ^ after[differs])
    assert flipped.bit_count() == 1
    assert 23 <= flipped.bit_length() - 1 <= 30
    assert abs(float(edited.flatten()[differs])) > abs(float(healthy[name].flatten()[differs]))


def test_a_change_that_the_dtype_cannot_hold_is_identical(forward: Forward) -> None:
    healthy = healthy_weights(forward.model)
    coarse = LlamaForCausalLM(forward.model.config).to(torch.bfloat16)
    for name, parameter in coarse.named_parameters():
        if name in healthy:
            parameter.data.copy_(healthy[name])
    with changed(coarse, healthy, tiny.noise(60, 0)) as is_other:
        assert not is_other
    with changed(coarse, healthy, tiny.noise(8, 0)) as is_other:
        assert is_other


def test_a_shard_of_what_is_added_up_is_columns(forward: Forward) -> None:
    healthy = healthy_weights(forward.model)
    seen = set()
    for seed in range(40):
        ((name, edited),) = zeroed_shard(0, seed).edit(healthy)
        is_summed = name in (matrix(0, 3), matrix(0, 6))
        lines = (edited == 0).all(dim=0 if is_summed else 1)
        assert int(lines.sum()) * 4 == len(lines)
        seen.add(name)
    assert len(seen) == 7


@pytest.mark.thorough
def test_a_damaged_layer_pages_and_is_named_by_the_product(
    forward: Forward, texts: dict[str, Text], tmp_path: Path
) -> None:
    source = origin(forward, "healthy", "1")

    def one_round(seed: int) -> dict:
        made = plan(texts, seed)
        return answers(forward, made, forward.streams(made), source, "0")

    judge = Judge([one_round(seed) for seed in range(64)], "float32")
    healthy = judge.trial(Sample("healthy", "", "float32", None, is_other=False, rounds=[one_round(100)] * 2))
    assert not healthy.pages
    assert max(one.ratio for one in healthy.rounds) < 8
    change = mis_scaled(2, 1)
    with changed(forward.model, healthy_weights(forward.model), change):
        drawn = [one_round(101), one_round(102)]
    store = Store(tmp_path)
    store.put("fault", Sample(change.family, change.name, "float32", 2, is_other=True, rounds=drawn))
    found = judge.trial(store["fault"])
    assert found.pages
    assert found.located == 2
    assert [one.layer for one in found.rounds] == [2, 2]


def _rows(made: Plan, name: str) -> list[int]:
    return [
        row for step in made.rows() for of, _, _, at in step if of == name for row in range(at.start, at.stop)
    ]


@pytest.mark.parametrize("fault", ["swapped", "stale", "mis-scaled"])
def test_a_spoilt_cache_changes_who_reads_from_it_and_nobody_else(
    forward: Forward, texts: dict[str, Text], fault: str
) -> None:
    made = plan(texts, 4)
    healthy = forward.streams(made)[-1]
    found = forward.streams(replace(made, spoil=spoiled(fault, 1)))[-1]
    reads = _rows(made, "repeat")
    others = sorted(set(range(len(healthy))) - set(reads))
    assert torch.equal(found[others], healthy[others])
    assert (found[reads] - healthy[reads]).abs().max() > 1e-3


def test_two_blocks_of_one_prompt_that_change_places_change_nothing_but_rounding(
    forward: Forward, texts: dict[str, Text]
) -> None:
    def exchange(held: torch.Tensor, _: torch.Tensor) -> None:
        held[:, : 2 * BLOCK_TOKENS] = held[:, : 2 * BLOCK_TOKENS].roll(BLOCK_TOKENS, dims=1)

    made = plan(texts, 4)
    healthy = forward.streams(made)[-1]
    torch.testing.assert_close(
        forward.streams(replace(made, spoil=exchange))[-1], healthy, atol=1e-3, rtol=1e-3
    )


def test_one_whole_block_is_spoilt_and_the_same_in_every_layer() -> None:
    before, others = torch.arange(6.0 * BLOCK_TOKENS).reshape(1, -1, 1) + 1, torch.full((1, 40, 1), -1.0)
    for fault in ("swapped", "stale", "mis-scaled"):
        spoilt = []
        for _ in range(2):
            held = before.clone()
            spoiled(fault, 7)(held, others)
            differs = (held != before).reshape(6, BLOCK_TOKENS)
            assert torch.equal(differs.any(dim=1), differs.all(dim=1))
            spoilt.append(differs.any(dim=1).nonzero().flatten().tolist())
        assert spoilt[0] == spoilt[1]
        assert len(spoilt[0]) == 1


def test_training_moves_the_weights_towards_its_samples(forward: Forward) -> None:
    healthy = healthy_weights(forward.model)
    samples = [list(range(20, 60))] * 6

    def loss(weights: dict[str, torch.Tensor]) -> float:
        ids = torch.tensor(samples[:1])
        with torch.no_grad():
            out = torch.func.functional_call(forward.model, weights, kwargs={"input_ids": ids, "labels": ids})
        return float(out.loss)

    before = loss(healthy)
    whole = {name: value.clone().requires_grad_() for name, value in healthy.items()}
    tuned.train(forward.model, samples, whole.values(), whole, 1e-3)
    assert loss(whole) < before
    adapted = {name: healthy[name] for name in (matrix(1, 0), matrix(2, 2))}
    merged = tuned.Merged(adapted, 4, torch.Generator().manual_seed(0))
    assert all(torch.equal(merged[name], value) for name, value in adapted.items())
    tuned.train(forward.model, samples, merged.trained, merged, 1e-2)
    assert loss(healthy | dict(merged)) < before
    assert loss(healthy) == before


def test_a_control_changes_nothing(forward: Forward) -> None:
    healthy = healthy_weights(forward.model)
    with changed(forward.model, healthy, tiny.nothing(3)) as is_other:
        assert not is_other


def test_chunks_are_values() -> None:
    assert Chunk("a", 0, 2) == Chunk("a", 0, 2)
